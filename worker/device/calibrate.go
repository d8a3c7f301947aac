package device

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// The CPU's calibration: a picture small enough for a temporary file of 21 MB,
// long enough to outlast GPAC's start by far.
const (
	calWidth, calHeight, calFrames = 640, 360, 60
	calLoops                       = 6
	calEnough                      = 2 * time.Second // of CPU time: a slow host has shown enough
)

// calibrateCPU returns the CPU's budget in px/s of x264's veryfast, with Headroom
// taken off, and whether it was kept, for this CPU model, number of cores
// and GPAC version. Otherwise GPAC encodes a made picture for about a second; it
// is the CPU time used that counts, not the time passed, so that a busy host gets
// the same result. An error beside a budget is that of keeping it.
func calibrateCPU(ctx context.Context, run Runner, kept cache, version string, cpu CPU) (pxPerS int64, fromCache bool, err error) {
	r := kept.load(cpuKey(cpu, version))
	if r.PxPerS > 0 {
		return cpuBudget(r.PxPerS, cpu), true, nil
	}
	if r.PxPerS, err = measureCore(ctx, run); err != nil {
		return 0, false, fmt.Errorf("calibrating the CPU: %w", err)
	}
	r.MeasuredAt = time.Now().UTC()
	return cpuBudget(r.PxPerS, cpu), false, kept.save(r)
}

func cpuKey(cpu CPU, version string) key {
	return key{Device: CPUID, Hardware: fmt.Sprintf("%s, %d cores", cpu.Model, cpu.Cores), GPAC: version}
}

func cpuBudget(perCore int64, cpu CPU) int64 {
	return int64(float64(perCore) * float64(cpu.Cores) * Headroom)
}

// measureCore returns how many pixels one core encodes in a second.
func measureCore(ctx context.Context, run Runner) (int64, error) {
	var used time.Duration
	var px int64
	for i := 0; i < calLoops && used < calEnough; i++ {
		cpu, _, err := encode(ctx, run, gpac.TestEncode{Codec: "h264", Width: calWidth, Height: calHeight, Frames: calFrames, Sessions: 1})
		if err != nil {
			return 0, err
		}
		used += cpu
		px += calWidth * calHeight * calFrames
	}
	if used <= 0 {
		return 0, errors.New("the encode took no CPU time")
	}
	return int64(float64(px) / used.Seconds()), nil
}
