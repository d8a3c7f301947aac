package device

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

// Manager follows the host's devices: what they are, what they can do, and what
// runs taught of them. Its queries run beside each other in the background, so
// that what asks it never waits for NVML or GPAC.
type Manager struct {
	cfg Config
	log hclog.Logger
	cpu *processor

	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	gpus map[string]*gpu // every one ever seen, by id
	nvml string          // what Report.NVML says
}

// NewManager checks the configuration and registers the metrics.
func NewManager(cfg Config) (*Manager, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Manager{cfg: cfg, log: cfg.Logger, cpu: newProcessor(cfg), gpus: map[string]*gpu{}}
	if cfg.NVML != NVMLOff {
		m.nvml = "starting"
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(collector{m}); err != nil {
			return nil, fmt.Errorf("devices: %w", err)
		}
	}
	return m, nil
}

// Start begins to watch. It returns at once; ctx bounds nothing but this call.
func (m *Manager) Start(ctx context.Context) {
	ctx, m.cancel = context.WithCancel(context.WithoutCancel(ctx))
	m.wg.Go(func() { m.cpu.calibrate(ctx) })
	m.wg.Go(func() { m.cpu.watch(ctx) })
	if m.cfg.NVML == NVMLOff {
		return
	}
	w := &watcher{driver: newDriver(m.cfg.NVML), log: m.log, see: m.saw, status: m.setNVML}
	m.wg.Go(func() { w.run(ctx) })
	m.wg.Go(func() { m.prove(ctx) })
}

// stopTimeout is how long Stop waits for calls that may hang in the driver.
const stopTimeout = 5 * time.Second

// Stop ends what Start began. A call that hangs in the driver is left behind.
func (m *Manager) Stop() {
	if m.cancel == nil {
		return
	}
	m.cancel()
	done := make(chan struct{})
	go func() {
		m.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(stopTimeout):
		m.log.Warn("a call to the driver hangs; it is left behind")
	}
}

func (m *Manager) setNVML(status string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nvml = status
}

// saw takes in what the watcher found of a card.
func (m *Manager) saw(s sighting) {
	m.mu.Lock()
	g := m.gpus[s.id]
	if g == nil {
		g = newGPU(m.cfg, s.id, s.name)
		m.gpus[s.id] = g
	}
	m.mu.Unlock()
	g.saw(s)
}

// cards are all GPUs in the order of their ids.
func (m *Manager) cards() []*gpu {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Collect(maps.Values(m.gpus))
	slices.SortFunc(all, func(a, b *gpu) int { return strings.Compare(a.id, b.id) })
	return all
}

// Fill sets the report's Devices, SessionLimit, SessionsUsed and NVML to what is
// known now. It waits for nothing.
func (m *Manager) Fill(r *capacity.Report) {
	r.Devices = []capacity.Device{m.cpu.device()}
	for _, g := range m.cards() {
		r.Devices = append(r.Devices, g.device())
	}
	m.mu.Lock()
	r.NVML = m.nvml
	m.mu.Unlock()
	r.SessionLimit, r.SessionsUsed = m.sessions(r.Devices)
}

// sessions returns the cap of the encoder sessions on the system's limited cards
// together and how many there are, each nil when there is none or it is unknown.
func (m *Manager) sessions(devices []capacity.Device) (limit, used *int) {
	sum, known := 0, true
	lower := func(n int) {
		if limit == nil || n < *limit {
			limit = &n
		}
	}
	any := false
	for _, d := range devices {
		if d.GPU == nil || d.GPU.SessionLimited == nil || !*d.GPU.SessionLimited {
			continue
		}
		any = true
		if d.GPU.SessionCount == nil {
			known = false
		} else {
			sum += *d.GPU.SessionCount
		}
		switch {
		case m.cfg.SessionLimit > 0:
			lower(m.cfg.SessionLimit)
		case m.cfg.SessionLimit == 0:
			driver := ""
			if d.GPU.Driver != nil {
				driver = *d.GPU.Driver
			}
			lower(sessionCap(driver))
		}
		for _, l := range d.Learned {
			if l.Limit == limitSessions {
				lower(int(l.Value))
			}
		}
	}
	if any && known {
		used = &sum
	}
	return limit, used
}

// Device returns what is known now of one device.
func (m *Manager) Device(id string) (capacity.Device, bool) {
	var r capacity.Report
	m.Fill(&r)
	return r.Device(id)
}

// Learn takes in what a run's failure teaches of its device. An unknown device, or
// a failure without the figures that its kind needs, teaches nothing.
func (m *Manager) Learn(device string, f Failure) {
	if f.At.IsZero() {
		f.At = m.cfg.Now()
	}
	l, g := &m.cpu.lessons, (*gpu)(nil)
	if device != CPUID {
		m.mu.Lock()
		g = m.gpus[device]
		m.mu.Unlock()
		if g == nil {
			m.log.Warn("a failure on an unknown device", "device", device, "kind", f.Kind, "detail", f.Detail)
			return
		}
		l = &g.lessons
		f = m.complete(g, f)
	}
	e, ok := l.learn(f)
	m.log.Warn("a run failed on a device", "device", device, "kind", f.Kind, "detail", f.Detail, "learned", ok, "limit", e.Limit, "value", e.Value, "until", e.Until)
	if ok && g != nil && e.Limit == limitUsable {
		g.recheck(e.Until)
	}
}

// complete takes NVML's figures where the failure has none, or less.
func (m *Manager) complete(g *gpu, f Failure) Failure {
	var r capacity.Report
	m.Fill(&r)
	d := g.device()
	switch {
	case r.SessionsUsed != nil:
		f.Sessions = max(f.Sessions, *r.SessionsUsed)
	case d.GPU.SessionCount != nil:
		f.Sessions = max(f.Sessions, *d.GPU.SessionCount)
	}
	if d.GPU.MemoryUsed != nil {
		f.Memory = max(f.Memory, *d.GPU.MemoryUsed)
	}
	return f
}
