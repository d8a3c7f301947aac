//go:build !linux

package transcode

func unread(int) bool { return false }
