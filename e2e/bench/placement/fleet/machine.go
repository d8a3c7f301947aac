package fleet

import (
	"fmt"
	"math/rand/v2"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

// Machine is a kind of worker, and how many of them the fleet has.
type Machine struct {
	Name  string
	Count int
	Cores int
	Cards int
	Card  Card
}

// Card is a kind of GPU.
type Card struct {
	Name    string
	Engines int  // of NVENC; 0 for a card without
	Limited bool // its encoder sessions count against the system's cap (GeForce)
	Memory  int64
}

const (
	// corePx is a core's budget in px/s of x264's veryfast, and enginePx an Ada
	// engine's in px/s of H.264 at P3: 647 frames of 1080p per second (Video Codec
	// SDK 13's application note). Both have the headroom taken off.
	corePx   = 40_000_000
	enginePx = 647 * 1920 * 1080 * 8 / 10
	// headroom is the share of a device's true speed that its budget is.
	headroom = 0.8
	// sessionCap is what GeForce drivers allow per system (Video Codec SDK 13.0).
	sessionCap = 8
)

// Mixed is the fleet of the benchmark: 100 workers.
func Mixed() []Machine {
	geforce := Card{Name: "GeForce RTX 4080", Engines: 2, Limited: true, Memory: 16 << 30}
	l4 := Card{Name: "L4", Engines: 2, Memory: 24 << 30}
	a100 := Card{Name: "A100", Memory: 80 << 30}
	return []Machine{
		{Name: "geforce", Count: 24, Cores: 16, Cards: 1, Card: geforce},
		{Name: "l4", Count: 12, Cores: 32, Cards: 2, Card: l4},
		{Name: "a100", Count: 6, Cores: 64, Cards: 4, Card: a100},
		{Name: "cpu8", Count: 20, Cores: 8},
		{Name: "cpu16", Count: 22, Cores: 16},
		{Name: "cpu32", Count: 16, Cores: 32},
	}
}

// Ref names a device of a fleet by its indexes.
type Ref struct{ Worker, Device int }

// Worker is a worker of a fleet.
type Worker struct {
	Name    string
	Up      bool
	Devices []*Device // the CPU first
	// SessionCap bounds the encoder sessions on its limited cards together; 0 is no
	// bound. Sessions are those that are taken.
	SessionCap, Sessions int
	report               capacity.Report
}

// CPU is the worker's CPU, which also decodes and scales for its cards.
func (w *Worker) CPU() *Device { return w.Devices[0] }

// Device is a device of a fleet.
type Device struct {
	ID      string
	Kind    capacity.Kind
	Usable  bool
	HEVC    bool // it encodes HEVC; every device encodes H.264
	Limited bool
	// Budget is what its worker reports, True what it can really do, both in px/s
	// of its kind.
	Budget, True float64
	// Streams are those placed on it.
	Streams int
	Meter   Meter
	used    int64 // what the worker's report says; see Worker.measure
}

// build makes the workers in an order that mixes the kinds. How wrong their
// calibration is, is drawn from rng.
func build(machines []Machine, rng *rand.Rand) []*Worker {
	var list []*Worker
	for _, m := range machines {
		for i := range m.Count {
			list = append(list, m.worker(fmt.Sprintf("%s-%02d", m.Name, i), rng))
		}
	}
	rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func (m Machine) worker(name string, rng *rand.Rand) *Worker {
	clockError := 1.0
	w := &Worker{Name: name, Up: true, report: capacity.Report{Worker: name, Boot: name, Ready: true, ClockErrorMillis: &clockError}}
	w.add(&Device{ID: capacity.ResourceCPU, Kind: capacity.CPU, Usable: true, Budget: corePx * float64(m.Cores)}, nil, rng)
	for i := range m.Cards {
		d := &Device{ID: fmt.Sprintf("gpu-%s-%d", name, i), Kind: capacity.GPU, Usable: m.Card.Engines > 0, Limited: m.Card.Limited,
			HEVC: true, Budget: enginePx * float64(m.Card.Engines)}
		memory := m.Card.Memory
		w.add(d, &capacity.GPUState{MemoryTotal: &memory, SessionLimited: &d.Limited}, rng)
		if m.Card.Limited {
			w.SessionCap = sessionCap
		}
	}
	if w.SessionCap > 0 {
		w.report.SessionLimit = &w.SessionCap
	}
	return w
}

// add adds a device and its part of the report.
func (w *Worker) add(d *Device, gpu *capacity.GPUState, rng *rand.Rand) {
	d.True = d.Budget / headroom * around(rng, calibrationError)
	w.Devices = append(w.Devices, d)
	r := capacity.Device{ID: d.ID, Kind: d.Kind, Usable: d.Usable, GPU: gpu, Used: &d.used}
	budget := int64(d.Budget)
	r.Capacity = &budget
	if d.Kind == capacity.GPU {
		if d.Budget == 0 {
			r.Reason, r.Capacity = "has no NVENC", nil
		} else {
			one := int64(enginePx)
			r.Codecs, r.SessionMax = []string{"h264", "hevc"}, &one
		}
	} else {
		r.Codecs = []string{"h264"}
	}
	w.report.Devices = append(w.report.Devices, r)
}
