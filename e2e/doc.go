// Package e2e proves the product from outside: it starts `dionysia dev` (or the
// roles, one by one) with the real parts, publishes to it, fetches through the
// router, and judges what comes out with ffprobe, ffmpeg and players in
// headless Chromium. Two cores are enough; the ladders are small for that.
package e2e
