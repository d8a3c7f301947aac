package device

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

const (
	loadEvery      = 2 * time.Second  // between two measurements of the host's load
	calibrateAgain = 30 * time.Second // after a failure
	// otherTime is the time constant of the average of what other processes use.
	otherTime = 30 * time.Second
	// otherMost is the most of the capacity that other processes are said to take:
	// they give way to GPAC at least as much as it to them, and a peak must not
	// refuse everything.
	otherMost = 0.5
)

// processor is the host's CPU as a device.
type processor struct {
	cfg     Config
	cpu     CPU
	lessons lessons

	mu     sync.Mutex
	px     int64 // budget, 0 until it is known
	pxFrom string
	used   *int64
	load   *float64
	other  average
}

func newProcessor(cfg Config) *processor {
	p := &processor{cfg: cfg, cpu: ProbeCPU(), other: average{time: otherTime}}
	if cfg.CPUCapacity > 0 {
		p.px, p.pxFrom = cfg.CPUCapacity, sourceConfigured
	}
	return p
}

// device is what the report says of it.
func (p *processor) device() capacity.Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	cores := p.cpu.Cores
	d := capacity.Device{ID: CPUID, Kind: capacity.CPU, Name: p.cpu.Model, Usable: true, Codecs: []string{"h264"},
		CapacitySource: p.pxFrom, Used: p.used, Cores: &cores, Load: p.load}
	if p.cfg.GPACVersion == (gpac.Version{}) {
		d.Usable, d.Reason, d.Codecs = false, noGPAC, []string{}
	}
	if px := p.px; px > 0 {
		d.Capacity = &px
		if share, ok := p.other.value(); ok && p.pxFrom != sourceConfigured {
			other := int64(min(share, otherMost) * float64(px))
			d.Other = &other
		}
	}
	p.lessons.apply(&d, p.cfg.Now())
	return d
}

// watch measures the load.
func (p *processor) watch(ctx context.Context) {
	var meter loadMeter
	meter.sample()
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	last, at := p.ours(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		busy, ok := meter.sample()
		ours, now := p.ours(), time.Now()
		p.sample(busy, ok, ours-last, now.Sub(at))
		last, at = ours, now
	}
}

// ours is the CPU time that all runs have used so far. Those on a GPU count too:
// they are decoded and scaled by the CPU.
func (p *processor) ours() time.Duration {
	var sum time.Duration
	for _, d := range p.cfg.Usage() {
		sum += d
	}
	return sum
}

// sample takes in an interval: the busy share of all cores, where it is known,
// and the CPU time of our runs.
func (p *processor) sample(busy float64, known bool, ours, interval time.Duration) {
	share := max(0, ours.Seconds()/interval.Seconds()/float64(p.cpu.Cores))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.load, p.used = nil, nil
	if known {
		p.load = &busy
	}
	if p.px == 0 {
		return // the calibration's own encode is no other process
	}
	used := int64(share / Headroom * float64(p.px))
	p.used = &used
	if known {
		p.other.add(max(0, busy-share), interval)
	}
}

// calibrate finds the capacity: kept, or measured.
func (p *processor) calibrate(ctx context.Context) {
	if p.cfg.CPUCapacity > 0 || p.cfg.GPACVersion == (gpac.Version{}) {
		return
	}
	for ctx.Err() == nil {
		px, cached, err := calibrateCPU(ctx, p.cfg.Run, p.cfg.cache(), p.cfg.GPACVersion.String(), p.cpu)
		if px > 0 {
			from := sourceCalibrated
			if cached {
				from = sourceCached
			}
			p.mu.Lock()
			p.px, p.pxFrom = px, from
			p.mu.Unlock()
			p.cfg.Logger.Info("CPU capacity", "px_per_s", px, "source", from, "cores", p.cpu.Cores, "model", p.cpu.Model)
		}
		if err != nil && ctx.Err() == nil {
			p.cfg.Logger.Warn("calibration", "error", err)
		}
		if px > 0 {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(calibrateAgain):
		}
	}
}

// The sources of a capacity, as a report names them.
const (
	sourceConfigured = "configured"
	sourceCached     = "cached"
	sourceCalibrated = "calibrated"
	sourceTable      = "table"
	sourceLearned    = "learned"
)

const noGPAC = "there is no usable GPAC"

// average is an exponentially weighted moving one.
type average struct {
	time time.Duration // its time constant
	v    float64
	seen bool
}

func (a *average) add(v float64, interval time.Duration) {
	if !a.seen {
		a.v, a.seen = v, true
		return
	}
	a.v += (v - a.v) * (1 - math.Exp(-interval.Seconds()/a.time.Seconds()))
}

func (a *average) value() (float64, bool) { return a.v, a.seen }
