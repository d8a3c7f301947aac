// Package transcode supervises one GPAC process for each placement that this
// worker holds.
//
// The manager is level-triggered: Reconcile compares what Redis says should run
// with what runs. Each placement has a loop, which works on while Redis is away.
package transcode

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/device"
	"github.com/dionysia-dev/dionysia/worker/gpac"
	"github.com/dionysia-dev/dionysia/worker/origin"
)

// Store is what the manager needs of Redis.
type Store interface {
	Placement(ctx context.Context, stream string) (stream.Placement, error)
	Placements(ctx context.Context, worker string) ([]stream.Placement, error)
	Reprice(ctx context.Context, id string, epoch uint64, reserved []stream.Reservation) error
	MoveDevice(ctx context.Context, stream string, epoch uint64, device string, reserved []stream.Reservation, limits []capacity.Limit) error
	RecordDevice(ctx context.Context, stream string, epoch uint64, device string, reserved []stream.Reservation, limits []capacity.Limit) error
	Release(ctx context.Context, stream string, epoch uint64) error
	PutStatus(ctx context.Context, status stream.RunStatus) error
	AddEvent(ctx context.Context, event stream.Event) error
}

// Origin is what the manager needs of the worker's origin.
type Origin interface {
	StartRun(start origin.RunStart) *origin.RunHandle
	Fence(stream string, epoch uint64)
	End(ctx context.Context, stream string, epoch uint64) error
}

// Config of a Manager.
type Config struct {
	Worker string // this worker's id
	Boot   string // changes at each start of the worker
	Dir    string // run directories: <Dir>/<stream>/<run>
	GPAC   string // program
	Jail   Jail
	// Version of GPAC, from gpac.Detect.
	Version gpac.Version
	// Token returns a read token for a mediamtx path; nil reads without one.
	Token func(path string) (string, error)
	// RunLimit bounds the bytes of one run's directory. Default 4 GiB.
	RunLimit int64
	// StartTimeout is how long a run may take to its first segment on every
	// rendition. Default 15 s.
	StartTimeout time.Duration
	// Poll is how often a waiting loop looks for its source. Default 500 ms.
	Poll time.Duration
}

// Deps of a Manager.
type Deps struct {
	Store      Store
	Origin     Origin
	Devices    Devices
	Logger     hclog.Logger
	Registerer prometheus.Registerer
}

// storeTimeout bounds each call of the store, so that a loop goes on.
const storeTimeout = time.Second

// Manager runs the placements of one worker.
type Manager struct {
	cfg     Config
	store   Store
	origin  Origin
	dev     Devices
	log     hclog.Logger
	m       *metrics
	spawner *spawner
	events  chan stream.Event

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// reconciling keeps an older view of Redis from being applied after a newer.
	reconciling sync.Mutex

	mu      sync.Mutex
	loops   map[string]*loop         // by stream
	live    map[*loop]struct{}       // those that have not ended, with those that another one has replaced
	retired map[string]time.Duration // CPU time of processes that are gone, by device
	ran     map[string]ran           // the newest run here of streams whose loop has ended
	behind  map[string]uint64        // placements of an epoch below that: it, by stream
}

// New starts a manager without placements.
func New(cfg Config, deps Deps) *Manager {
	cfg.RunLimit = cmp.Or(cfg.RunLimit, 4<<30)
	cfg.StartTimeout = cmp.Or(cfg.StartTimeout, 15*time.Second)
	cfg.Poll = cmp.Or(cfg.Poll, 500*time.Millisecond)
	if deps.Logger == nil {
		deps.Logger = hclog.NewNullLogger()
	}
	m := &Manager{cfg: cfg, store: deps.Store, origin: deps.Origin, dev: deps.Devices, log: deps.Logger, m: newMetrics(deps.Registerer),
		spawner: newSpawner(), events: make(chan stream.Event, 256), loops: map[string]*loop{}, live: map[*loop]struct{}{}, retired: map[string]time.Duration{},
		ran: map[string]ran{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.wg.Go(m.sendEvents)
	m.wg.Go(m.report)
	return m
}

// Sync reads this worker's placements and reconciles. While Redis is away it
// returns an error and changes nothing.
func (m *Manager) Sync(ctx context.Context) error {
	m.reconciling.Lock()
	defer m.reconciling.Unlock()
	if err := m.ctx.Err(); err != nil {
		return fmt.Errorf("stopping: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*storeTimeout)
	defer cancel()
	desired, err := m.store.Placements(ctx, m.cfg.Worker)
	if err != nil {
		return fmt.Errorf("reading this worker's placements: %w", err)
	}
	m.reconcile(ctx, desired)
	m.record(ctx)
	return nil
}

// reconcile makes what runs follow desired.
func (m *Manager) reconcile(ctx context.Context, desired []stream.Placement) {
	want := map[string]stream.Placement{}
	for _, p := range desired {
		// A placement of an earlier start of this worker is the controller's to
		// replace, at a higher epoch; one that is ending is only to be released.
		if p.Boot == m.cfg.Boot || p.State == stream.PlacementEnding {
			want[p.Stream] = p
		}
	}
	for _, l := range m.apply(want) {
		ctx, cancel := context.WithTimeout(ctx, storeTimeout)
		p, err := m.store.Placement(ctx, l.id)
		cancel()
		m.without(l, p, err)
	}
}

// apply makes the loops follow what is wanted, and returns those of which Redis has
// to be asked why they are not.
func (m *Manager) apply(want map[string]stream.Placement) (missing []*loop) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, l := range m.loops { // before any begins, which awaits them
		p, ok := want[id]
		if l.missing = (!ok || p.Epoch < l.epoch) && !l.over(); l.missing {
			missing = append(missing, l)
		} else {
			l.unknown = time.Time{}
		}
	}
	m.behind = map[string]uint64{}
	for id, p := range want {
		l, last := m.loops[id], m.ran[id].id.Epoch
		switch {
		case l != nil && p.Epoch < l.epoch: // state went back: see without
		case l == nil && p.Epoch < last && p.State == stream.PlacementPlaced:
			m.behind[id] = last
		case l != nil && p.Epoch == l.epoch:
			l.update(p)
		default:
			if l != nil {
				m.fence(l, p.Epoch)
			}
			m.loops[id] = m.begin(p, l)
		}
	}
	return missing
}

// fence ends a loop whose stream has a higher epoch. The lock is held.
func (m *Manager) fence(l *loop, epoch uint64) {
	m.origin.Fence(l.id, epoch)
	l.stop(fmt.Sprintf("fenced by epoch %d", epoch), false)
}

// begin starts the loop of a placement after that of its predecessor. The lock is
// held.
func (m *Manager) begin(p stream.Placement, before *loop) *loop {
	l := newLoop(m, p)
	if last := m.ran[l.id].id; last.Epoch == l.epoch {
		l.runs = last.Run // its URLs name the same for ever
	}
	m.live[l] = struct{}{}
	m.wg.Go(func() {
		if before != nil {
			<-before.done
		}
		l.run(m.ctx)
		close(l.done)
		m.mu.Lock()
		delete(m.live, l)
		m.remember(l)
		if m.loops[l.id] == l {
			delete(m.loops, l.id)
		}
		m.mu.Unlock()
		m.m.age.DeleteLabelValues(l.id)
	})
	return l
}

// Settled waits until the placement runs GPAC, is refused, waits for its source
// in vain, or is not this worker's; or for ctx's end.
func (m *Manager) Settled(ctx context.Context, id string, epoch uint64) error {
	m.mu.Lock()
	l := m.loops[id]
	m.mu.Unlock()
	if l == nil || l.epoch != epoch {
		return nil
	}
	select {
	case <-l.settled:
		return nil
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s to start: %w", id, ctx.Err())
	}
}

// Epochs returns the epoch of each placement that this worker runs. Of one that it
// does not begin, because a higher epoch of the stream has run here before, it is that
// one: Redis state went back in time, and the controller places the stream above it.
func (m *Manager) Epochs() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]uint64{}
	for id, l := range m.loops {
		out[id] = l.epoch
	}
	for id, epoch := range m.behind {
		out[id] = max(out[id], epoch)
	}
	return out
}

// Usage returns the CPU time that GPAC processes have used so far, those that
// have ended included, by the device that they encode on.
func (m *Manager) Usage() map[string]time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	total := maps.Clone(m.retired)
	for _, l := range m.loops {
		if pid := l.pid.Load(); pid != 0 {
			if t, err := device.ProcessCPU(int(pid)); err == nil {
				id, _ := l.place()
				total[id] += t
			}
		}
	}
	return total
}

func (m *Manager) retire(device string, t time.Duration) {
	m.mu.Lock()
	m.retired[device] += t
	m.mu.Unlock()
	m.m.cpu.Add(t.Seconds())
}

// Stop ends every GPAC, flushed, and waits for the loops. The placements stay:
// the controller gives them to others.
func (m *Manager) Stop() {
	m.reconciling.Lock() // nothing begins once the loops are told to end
	m.mu.Lock()
	for _, l := range m.loops {
		l.stop("the worker stops", true)
	}
	m.mu.Unlock()
	m.cancel()
	m.reconciling.Unlock()
	m.wg.Wait()
}

// event queues an entry of the stream's history; it is dropped when Redis has
// been away for long.
func (m *Manager) event(id, typ, level, text string) {
	e := stream.Event{Stream: id, Time: time.Now().UTC(), Type: typ, Level: level, Message: text}
	select {
	case m.events <- e:
	default:
	}
}

func (m *Manager) sendEvents() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case e := <-m.events:
			for tries := 0; tries < 60; tries++ {
				ctx, cancel := context.WithTimeout(m.ctx, storeTimeout)
				err := m.store.AddEvent(ctx, e)
				cancel()
				if err == nil || m.ctx.Err() != nil {
					break
				}
				sleep(m.ctx, time.Second)
			}
		}
	}
}

// report sends each run's status once a second.
func (m *Manager) report() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-tick.C:
		}
		m.mu.Lock()
		loops := make([]*loop, 0, len(m.loops))
		for _, l := range m.loops {
			loops = append(loops, l)
		}
		m.mu.Unlock()
		m.m.runs.Reset()
		for _, l := range loops {
			s := l.status()
			m.m.runs.WithLabelValues(string(s.State)).Inc()
			m.putStatus(s)
		}
	}
}

func (m *Manager) putStatus(s stream.RunStatus) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(m.ctx), storeTimeout)
	defer cancel()
	if err := m.store.PutStatus(ctx, s); err != nil {
		m.log.Debug("can't report a run's status", "stream", s.Stream, "error", err)
	}
}

// sleep waits, and reports whether it waited to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
