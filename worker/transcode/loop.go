package transcode

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/origin"
)

// loop runs one placement, one GPAC after the other.
//
//	           ┌── no publisher: look again ──┐
//	           ▼                              │
//	begin → waiting ── can't be transcoded → refused ── look again ─┐
//	           ▲ │                                                  │
//	           │ └─ probed → starting → running ── exit, crash, ────┤
//	           │                                  stall, format     │
//	           └──────────────── backoff ◀──────────────────────────┘
//
// From every state: ending → flushed, listed, closed, released → stopped;
// fenced → killed → stopped; lost, and nobody sends → closed → stopped.
type loop struct {
	m     *Manager
	id    string
	epoch uint64
	log   hclog.Logger
	done  chan struct{} // closed when the loop has ended
	pid   atomic.Int64  // of GPAC; 0 when there is none

	settled     chan struct{} // see Manager.Settled
	settledOnce sync.Once
	poke        chan struct{} // the placement changed
	// ctx ends when the loop must; graceful says whether GPAC may flush.
	ctx      context.Context
	cancel   context.CancelFunc
	graceful atomic.Bool
	closes   atomic.Bool // stop is its broadcast's end, which nobody else tells viewers

	prober  prober             // of run's goroutine
	waiting time.Time          // since when there has been no source; of the same
	shunned map[string]shunned // by device; of the same
	slowAt  time.Time          // when the run was found too slow; of the same
	began   time.Time          // when the newest GPAC started, zero before the first; of the same
	unmoved time.Time          // when an event said that no device takes the run; of the same
	unknown time.Time          // since when Redis has not known the placement; under the manager's mu
	missing bool               // Redis was not asked yet why it is not this worker's; under the manager's mu

	saidOf string          // the session that said is of; run's goroutine's
	said   map[string]bool // events that come once in a session, by text; of the same

	mu        sync.Mutex
	sent      time.Time // when the publisher was last known to send
	placement stream.Placement
	// device is where the run encodes, and reserved what it holds there: the
	// placement's until a failure moved it, whatever Redis knows of that.
	device    string
	reserved  []stream.Reservation
	state     stream.RunState
	runs      uint32 // the current or last one
	restarts  int
	lastError string
	refused   string              // RunStatus.Refused
	told      string              // the refusal that an event has told, "" since a run has started
	media     *stream.SourceMedia // what was probed, and of which session
	session   string
	ladder    stream.Ladder
	handle    *origin.RunHandle
}

func newLoop(m *Manager, p stream.Placement) *loop {
	l := &loop{m: m, id: p.Stream, epoch: p.Epoch, log: m.log.With("stream", p.Stream, "epoch", p.Epoch),
		done: make(chan struct{}), settled: make(chan struct{}), poke: make(chan struct{}, 1), placement: p, state: stream.RunWaiting,
		shunned: map[string]shunned{}, device: p.Device, reserved: p.Reserved}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// update gives the loop its placement's newest state.
func (l *loop) update(p stream.Placement) {
	l.mu.Lock()
	changed := p.State != l.placement.State || p.Source.Session != l.placement.Source.Session
	l.placement = p
	l.mu.Unlock()
	if changed {
		select {
		case l.poke <- struct{}{}:
		default:
		}
	}
}

func (l *loop) current() stream.Placement {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.placement
}

func (l *loop) ending() bool { return l.current().State == stream.PlacementEnding }

// stop ends the loop without releasing its placement.
func (l *loop) stop(why string, graceful bool) {
	if l.ctx.Err() == nil {
		l.log.Info("stopping", "reason", why)
	}
	l.graceful.Store(graceful)
	l.cancel()
}

// heard notes that the publisher sends.
func (l *loop) heard() {
	l.mu.Lock()
	l.sent = time.Now()
	l.mu.Unlock()
}

func (l *loop) over() bool { return l.ctx.Err() != nil }

func (l *loop) settle() { l.settledOnce.Do(func() { close(l.settled) }) }

// set changes the state; an empty text leaves the last error as it is.
func (l *loop) set(s stream.RunState, text string) {
	l.mu.Lock()
	changed := l.state != s
	l.state = s
	if text != "" {
		l.lastError = text
	}
	l.mu.Unlock()
	if changed {
		st := l.status()
		l.m.wg.Go(func() { l.m.putStatus(st) })
	}
}

func (l *loop) status() stream.RunStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := stream.RunStatus{Stream: l.id, Epoch: l.epoch, Run: l.runs, State: l.state, Restarts: l.restarts,
		LastError: l.lastError, Device: l.device, Media: l.media, Session: l.session, UpdatedAt: time.Now().UTC(), Renditions: []stream.RenditionStatus{}}
	if l.state == stream.RunRefused {
		s.Refused = l.refused
	}
	if l.handle == nil {
		return s
	}
	measured := map[string]origin.RungProgress{}
	var oldest time.Time
	for _, p := range l.handle.Progress() {
		measured[p.Name] = p
		if oldest.IsZero() || p.LastSegmentAt.Before(oldest) {
			oldest = p.LastSegmentAt
		}
	}
	for _, v := range l.ladder.Video {
		s.Renditions = append(s.Renditions, stream.RenditionStatus{Name: v.Name, Codec: v.Codec, Width: v.Width, Height: v.Height,
			FPS: measured[v.Name].FPS, Bitrate: measured[v.Name].Bitrate})
	}
	for _, a := range l.ladder.Audio {
		s.Renditions = append(s.Renditions, stream.RenditionStatus{Name: a.Name, Codec: a.Codec, Bitrate: measured[a.Name].Bitrate})
	}
	if !oldest.IsZero() {
		l.m.m.age.WithLabelValues(l.id).Set(time.Since(oldest).Seconds())
	}
	return s
}

// run is the loop's goroutine.
func (l *loop) run(parent context.Context) {
	stop := context.AfterFunc(parent, func() { l.cancel() })
	defer stop()
	defer l.settle()
	defer l.prober.close()
	l.log.Info("placement taken", "worker", l.m.cfg.Worker, "device", l.current().Device, "price", l.current().Price)
	var back backoff
	for !l.over() && !l.ending() {
		src, ok := l.findSource()
		if !ok || !l.book(src, &back) {
			continue
		}
		l.prober.close()
		end := l.runOnce(src)
		if l.over() || l.ending() {
			break
		}
		l.m.m.restarts.WithLabelValues(end.reason).Inc()
		l.mu.Lock()
		l.restarts++
		l.mu.Unlock()
		if end.moved || end.fault != nil && l.moveOn(src, *end.fault) {
			continue
		}
		d := back.next(end)
		l.log.Warn("run ended", "reason", end.reason, "detail", end.detail, "lived", end.lived.Round(time.Millisecond).String(), "again_in", d.String())
		if d > 0 {
			l.set(stream.RunBackoff, end.detail)
			l.wait(d)
		}
	}
	switch {
	case !l.over():
		l.finish()
	case l.closes.Load():
		l.close(parent)
	}
	l.set(stream.RunStopped, "")
}

// wait sleeps until d has passed or the placement changed.
func (l *loop) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.poke:
	case <-l.ctx.Done():
	}
}

// finish brings a placement that is ending to its end: what is whole is public,
// the playlists are closed, the reservation is returned.
func (l *loop) finish() {
	for !l.over() {
		ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
		err := l.m.origin.End(ctx, l.id, l.epoch)
		if err == nil {
			err = l.m.store.Release(ctx, l.id, l.epoch)
		}
		cancel()
		if err == nil || errors.Is(err, stream.ErrFenced) || errors.Is(err, stream.ErrNotFound) || errors.Is(err, stream.ErrConflict) {
			l.log.Info("placement ended", "error", err)
			return
		}
		l.log.Warn("can't end the placement yet", "error", err)
		l.wait(time.Second)
	}
}

// close closes the playlists of a placement that Redis does not know, of which there
// is nothing to release: until then routers serve them on as they are. It takes 5 s at
// most.
func (l *loop) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := l.m.origin.End(ctx, l.id, l.epoch); err != nil {
		l.log.Warn("can't close the playlists", "error", err)
		return
	}
	l.log.Info("playlists closed")
}
