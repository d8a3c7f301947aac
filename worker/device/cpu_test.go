package device

import (
	"math"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

func TestOtherWorkOfTheHost(t *testing.T) {
	p := newProcessor(Config{Now: time.Now, GPACVersion: gpac.Version{Major: 1}})
	p.cpu.Cores = 4
	p.sample(1, true, 0, 2*time.Second)
	if d := p.device(); d.Other != nil || d.Used != nil || *d.Load != 1 {
		t.Fatalf("before the calibration: %+v", d)
	}
	p.px, p.pxFrom = 1000, sourceCached
	step := func(busy float64, ours time.Duration) capacity.Device {
		p.sample(busy, true, ours, 2*time.Second)
		return p.device()
	}
	// 2 s of CPU time in 2 s are a quarter of 4 cores; half of the host is busy.
	if d := step(0.5, 2*time.Second); *d.Used != 312 || *d.Other != 250 || *d.Load != 0.5 {
		t.Errorf("used %d, other %d, load %f", *d.Used, *d.Other, *d.Load)
	}
	// A peak moves it slowly: after 2 s of 30 by a fifteenth of the way.
	d := step(1, 2*time.Second)
	want := 250 + 500*(1-math.Exp(-2.0/30))
	if math.Abs(float64(*d.Other)-want) > 1 {
		t.Errorf("other %d, want %.0f", *d.Other, want)
	}
	for range 300 {
		d = step(1, 0)
	}
	if *d.Other != 500 {
		t.Errorf("other work takes %d of 1000, half is the most", *d.Other)
	}
	for range 300 {
		d = step(0.1, 2*time.Second) // GPAC's time may be counted before the host's
	}
	if *d.Other != 0 {
		t.Errorf("other %d", *d.Other)
	}
	p.sample(0, false, -time.Second, 2*time.Second)
	if d := p.device(); d.Load != nil || *d.Used != 0 {
		t.Errorf("without /proc/stat: %+v", d)
	}
}

func TestConfiguredCapacityIsNotLoweredByOthers(t *testing.T) {
	p := newProcessor(Config{CPUCapacity: 1000, Now: time.Now, GPACVersion: gpac.Version{Major: 1}})
	p.sample(1, true, 0, 2*time.Second)
	if d := p.device(); d.Other != nil || *d.Capacity != 1000 || d.CapacitySource != "configured" {
		t.Errorf("%+v", d)
	}
}

func TestUsageOfAllRunsIsOurs(t *testing.T) {
	p := newProcessor(Config{Now: time.Now, Usage: func() map[string]time.Duration {
		return map[string]time.Duration{CPUID: time.Second, "gpu-1": 2 * time.Second}
	}})
	if got := p.ours(); got != 3*time.Second {
		t.Errorf("%s", got)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
	}{
		{"no cache", Config{}},
		{"negative capacity", Config{CacheDir: "x", CPUCapacity: -1}},
		{"bad session limit", Config{CacheDir: "x", SessionLimit: -2}},
	} {
		if _, err := NewManager(c.cfg); err == nil {
			t.Errorf("%s: no error", c.name)
		}
	}
}
