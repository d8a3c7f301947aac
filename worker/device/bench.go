package device

import (
	"context"
	"fmt"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// Result is what a benchmark found out about a device.
type Result struct {
	Device, Name string
	// Reason says why it can't encode, "" when it can; the figures are 0 then.
	Reason string
	Codecs []string // proven
	// PxPerS is what it encodes in px/s: x264 veryfast on a CPU, H.264 at P3 on a
	// GPU. Budget is what placements may use of it.
	PxPerS, Budget int64
	Source         string // calibrated, or table where it could not be measured
	// Sessions is how many 1920x1080 pictures of 30 fps fit in the budget at real
	// time, within the session cap of GeForce drivers.
	Sessions int
	// SessionCap is that of the system's GeForce cards together; 0 where there is none.
	SessionCap int
	// Equivalents is PxPerS in such pictures, without headroom.
	Equivalents float64
}

const px1080p30 = framePx * 30

func (r Result) String() string {
	if r.Reason != "" {
		return fmt.Sprintf("%s (%s): not usable: %s", r.Device, r.Name, r.Reason)
	}
	return fmt.Sprintf("%s (%s): %d px/s (%s), %.1f × 1080p30; budget %d px/s, %d sessions of 1080p30 at real time; %v",
		r.Device, r.Name, r.PxPerS, r.Source, r.Equivalents, r.Budget, r.Sessions, r.Codecs)
}

// Benchmark proves and measures every device with real encodes, whatever is kept,
// and keeps the results for the worker's next start. It needs an idle host. report
// gets a line for each step.
func Benchmark(ctx context.Context, cfg Config, report func(line string)) ([]Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if cfg.GPACVersion == (gpac.Version{}) {
		return nil, fmt.Errorf("measuring devices: %s", noGPAC)
	}
	cpu, err := benchCPU(ctx, cfg, report)
	if err != nil {
		return nil, err
	}
	results := []Result{cpu}
	if cfg.NVML == NVMLOff {
		return results, nil
	}
	d := newDriver(cfg.NVML)
	version, err := d.open()
	if err != nil {
		report("NVML: " + err.Error())
		return results, nil
	}
	defer d.close()
	n, err := d.count()
	if err != nil {
		report("NVML: " + err.Error())
		return results, nil
	}
	for i := range n {
		c, err := d.card(i)
		if err != nil {
			report("NVML: " + err.Error())
			continue
		}
		r := benchGPU(ctx, cfg, c, version, report)
		if ctx.Err() != nil {
			return results, ctx.Err()
		}
		results = append(results, r)
	}
	return results, nil
}

func benchCPU(ctx context.Context, cfg Config, report func(string)) (Result, error) {
	cpu := ProbeCPU()
	report(fmt.Sprintf("%s: encoding with x264 on %s, %d cores", CPUID, cpu.Model, cpu.Cores))
	perCore, err := measureCore(ctx, cfg.Run)
	if err != nil {
		return Result{}, fmt.Errorf("measuring the CPU: %w", err)
	}
	r := record{Version: cacheVersion, key: cpuKey(cpu, cfg.GPACVersion.String()), PxPerS: perCore, MeasuredAt: time.Now().UTC()}
	if err := cfg.cache().save(r); err != nil {
		report(err.Error())
	}
	px, budget := perCore*int64(cpu.Cores), cpuBudget(perCore, cpu)
	res := Result{Device: CPUID, Name: cpu.Model, Codecs: []string{"h264"}, PxPerS: px, Budget: budget, Source: sourceCalibrated,
		Sessions: int(budget / px1080p30), Equivalents: float64(px) / px1080p30}
	report(res.String())
	return res, nil
}

func benchGPU(ctx context.Context, cfg Config, c card, version string, report func(string)) Result {
	g := newGPU(cfg, c.id, c.name)
	see := func() error {
		state, err := c.state()
		g.saw(sighting{id: c.id, name: c.name, driver: version, state: state, gone: err})
		return err
	}
	if err := see(); err == nil && g.engines() > 0 {
		report(fmt.Sprintf("%s: proving the encoders of %s", c.id, c.name))
		g.recheck(cfg.Now())
		g.prove(ctx, g.claimed())
		if len(g.proven()) > 0 && !g.measured {
			report(fmt.Sprintf("%s: measuring its %d engines", c.id, g.engines()))
			if _, err := g.calibrate(ctx); err != nil {
				report(err.Error())
			}
		}
		_ = see() // that took a while
	}
	r := gpuResult(g.device(), cfg.SessionLimit, version)
	report(r.String())
	return r
}

func gpuResult(d capacity.Device, sessionLimit int, version string) Result {
	r := Result{Device: d.ID, Name: d.Name, Reason: d.Reason, Codecs: d.Codecs, Source: d.CapacitySource}
	switch {
	case !d.Usable:
		return r
	case d.Capacity == nil:
		r.Reason = "its speed is not known"
		return r
	}
	r.Budget, r.PxPerS = *d.Capacity, int64(float64(*d.Capacity)/Headroom)
	r.Sessions, r.Equivalents = int(r.Budget/px1080p30), float64(r.PxPerS)/px1080p30
	if limited := d.GPU.SessionLimited; limited != nil && *limited && sessionLimit >= 0 {
		if sessionLimit == 0 {
			sessionLimit = sessionCap(version)
		}
		r.Sessions, r.SessionCap = min(r.Sessions, sessionLimit), sessionLimit
	}
	return r
}
