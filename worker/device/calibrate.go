package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The calibration's picture: small enough for a temporary file of 21 MB, long
// enough to outlast GPAC's start by far.
const (
	calWidth, calHeight, calFrames = 640, 360, 60
	calLoops                       = 6 // the file is read so many times
	calPreset                      = "veryfast"
)

// cached is the calibration file.
type cached struct {
	Model   string `json:"model"`
	Cores   int    `json:"cores"`
	GPAC    string `json:"gpac"`
	PxPerS  int64  `json:"px_per_s"`
	Preset  string `json:"preset"`
	Version int    `json:"version"`
}

const cacheVersion = 1

// Calibrate returns the CPU's budget in px/s of x264's veryfast, with Headroom
// taken off, and whether it came from the cache file in dir, which holds one
// result for one CPU model, number of cores and GPAC version. It encodes a made
// picture with GPAC for about a second; it takes the CPU time used, not the time
// passed, so that a busy host gets the same result.
func Calibrate(ctx context.Context, gpac, version, dir string, cpu CPU) (pxPerS int64, fromCache bool, err error) {
	key := cached{Model: cpu.Model, Cores: cpu.Cores, GPAC: version, Preset: calPreset, Version: cacheVersion}
	file := filepath.Join(dir, "cpu-calibration.json")
	if c, err := readCache(file); err == nil {
		px := c.PxPerS
		if c.PxPerS = 0; c == key && px > 0 {
			return px, true, nil
		}
	}
	perCore, err := measure(ctx, gpac)
	if err != nil {
		return 0, false, fmt.Errorf("calibrating the CPU: %w", err)
	}
	key.PxPerS = int64(perCore * float64(cpu.Cores) * Headroom)
	if err := writeCache(file, key); err != nil {
		return key.PxPerS, false, fmt.Errorf("keeping the calibration: %w", err)
	}
	return key.PxPerS, false, nil
}

// measure returns how many pixels one core encodes in a second.
func measure(ctx context.Context, gpac string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "dionysia-calibrate")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.WriteFile(filepath.Join(dir, "in.yuv"), testPicture(), 0o600); err != nil {
		return 0, err
	}
	var cpu time.Duration
	for range calLoops {
		cmd := exec.CommandContext(ctx, gpac, "-p=0",
			"-i", fmt.Sprintf("in.yuv:size=%dx%d:spfmt=yuv420:fps=30", calWidth, calHeight),
			fmt.Sprintf("ffenc:c=libx264:b=1000000:fintra=2:preset=%s:tune=zerolatency:g=60:sc_threshold=0", calPreset),
			"-o", "out.264")
		cmd.Dir, cmd.WaitDelay = dir, time.Second
		cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + dir, "TMPDIR=" + dir}
		out, err := cmd.CombinedOutput()
		if err != nil {
			return 0, fmt.Errorf("encoding with %s: %w: %.300q", gpac, err, out)
		}
		if info, err := os.Stat(filepath.Join(dir, "out.264")); err != nil || info.Size() == 0 {
			return 0, fmt.Errorf("encoding with %s: it wrote nothing: %.300q", gpac, out)
		}
		cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if cpu > 2*time.Second { // a slow host has shown enough
			return calWidth * calHeight * calFrames / cmd.ProcessState.UserTime().Seconds(), nil
		}
	}
	if cpu <= 0 {
		return 0, errors.New("the encode took no CPU time")
	}
	return calWidth * calHeight * calFrames * calLoops / cpu.Seconds(), nil
}

// testPicture makes YUV 4:2:0 frames that move everywhere and hold some noise,
// so that they cost what ordinary pictures cost.
func testPicture() []byte {
	b := make([]byte, 0, calWidth*calHeight*3/2*calFrames)
	seed := uint32(1)
	for f := range calFrames {
		for y := range calHeight {
			for x := range calWidth {
				seed = seed*1664525 + 1013904223 // Numerical Recipes' generator
				b = append(b, byte((x+3*f)^(y+f))/2+byte(seed>>28))
			}
		}
		for i := range calWidth * calHeight / 2 {
			b = append(b, byte(96+(i/64+f)%64))
		}
	}
	return b
}

func readCache(file string) (cached, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return cached{}, err
	}
	var c cached
	return c, json.Unmarshal(b, &c)
}

func writeCache(file string, c cached) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	tmp := file + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, file)
}
