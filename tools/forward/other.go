//go:build !linux

package main

func main() { panic("forward: there are network namespaces on Linux only") }
