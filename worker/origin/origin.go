// Package origin composes and serves the public HLS and DASH manifests of the
// runs on this worker, and their segments. GPAC's own playlists are never
// served: a segment is listed when every rendition has it whole and its tail
// entry is in Redis (or Redis is away).
package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// Store is what the origin needs of Redis live.
type Store interface {
	// SaveRun stores a run before its first segment.
	SaveRun(ctx context.Context, stream string, run stream.Run) error
	// AppendSegment stores a tail entry: stream.ErrFenced when a higher epoch
	// exists, stream.ErrConflict when seg does not follow the tail.
	AppendSegment(ctx context.Context, stream, broadcast string, seg stream.Segment, window time.Duration) error
	// LoadTail returns stream.ErrNotFound when there is none.
	LoadTail(ctx context.Context, stream string) (stream.Tail, error)
	// EndTail marks the tail as ended.
	EndTail(ctx context.Context, stream string, epoch uint64) error
}

// Config of an Origin.
type Config struct {
	// ID is the origin's id, by which DNS knows it; every answer names it. Empty:
	// none does, and a router takes the answers of whoever has the address.
	ID string
	// Dir is where the runs' directories are, <Dir>/<stream>/<run>. What an
	// earlier process left there is served while the stream's tail names it, and
	// removed when no tail can any more.
	Dir        string
	Store      Store
	Logger     hclog.Logger
	Registerer prometheus.Registerer
	// StoreTimeout bounds each call of the store; it delays a listing at most
	// that long, once. Default 400 ms.
	StoreTimeout time.Duration
	// Linger is how much longer than the window an ended stream is served.
	// Default 60 s.
	Linger time.Duration
	// OfferWait bounds how long a number is not listed for the sake of routers
	// that follow its stream; see offers. Default 300 ms.
	OfferWait time.Duration
	// Poll is how often a run's directory is read beside the events. Default 1 s.
	Poll time.Duration
	// VerifyEpoch says whether a request that names a higher epoch may fence a
	// stream; nil trusts every request, which is for an origin that only routers
	// can reach.
	VerifyEpoch func(stream string, epoch uint64, header string) bool
	Now         func() time.Time
}

// Origin serves the runs of one worker.
type Origin struct {
	cfg        Config
	log        hclog.Logger
	metrics    *metrics
	watcher    *watcher
	storeRetry atomic.Int64 // when to try the store again, 0 when it is well
	streams    sync.Map     // id → *state

	ending   chan struct{} // closed by EndWaits
	endWaits sync.Once

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	start  sync.Mutex
}

// New starts an origin; Close stops it.
func New(cfg Config) (*Origin, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.StoreTimeout = cmp.Or(cfg.StoreTimeout, 400*time.Millisecond)
	cfg.Linger = cmp.Or(cfg.Linger, time.Minute)
	cfg.OfferWait = cmp.Or(cfg.OfferWait, 300*time.Millisecond)
	cfg.Poll = cmp.Or(cfg.Poll, time.Second)
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the run directories' root: %w", err)
	}
	o := &Origin{cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer), ending: make(chan struct{})}
	if err := o.findLeftovers(); err != nil {
		return nil, err
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	w, err := newWatcher()
	if err != nil {
		o.log.Warn("polling run directories", "error", err)
	} else {
		o.watcher = w
		o.wg.Go(w.run)
	}
	o.wg.Go(o.janitor)
	o.wg.Go(o.flusher)
	return o, nil
}

// Close stops the goroutines. Files stay where they are.
func (o *Origin) Close() {
	o.EndWaits()
	o.cancel()
	if o.watcher != nil {
		o.watcher.close()
	}
	o.wg.Wait()
}

func (o *Origin) watch(dir string, fn func(string)) (func(), error) {
	if o.watcher == nil {
		return nil, errors.New("no watcher")
	}
	return o.watcher.add(dir, fn)
}

func (o *Origin) lookup(id string) *state {
	v, ok := o.streams.Load(id)
	if !ok {
		return nil
	}
	return v.(*state)
}

// StartRun begins to look for a run's segments. An earlier run of the stream is
// taken as stopped. It does not block.
func (o *Origin) StartRun(start RunStart) *RunHandle {
	o.start.Lock()
	defer o.start.Unlock()
	id := start.Placement.Stream
	st := o.lookup(id)
	if st == nil {
		st = newState(id, o.log)
		o.streams.Store(id, st)
	}
	r := newRun(o, st, start)
	st.mu.Lock()
	st.touched, st.removeAt = o.cfg.Now(), time.Time{}
	if st.fencedBy.Load() <= start.ID.Epoch {
		st.fencedBy.Store(0) // placed here again
	}
	if st.status == absent {
		st.status = waiting
		st.view.Store(&view{})
	}
	st.forget(start.ID)
	var before []*runState
	for _, p := range st.runs {
		p.stop()
		before = append(before, p)
	}
	st.runs[start.ID] = r
	st.mu.Unlock()
	o.wg.Go(func() { r.loop(before) })
	return &RunHandle{run: r}
}

// Fence tells that epoch exists for the stream: what this origin holds of lower
// ones lists nothing new, answers 410 for its manifests, and stays fetchable for
// the window.
func (o *Origin) Fence(id string, epoch uint64) {
	st := o.lookup(id)
	if st == nil {
		return
	}
	for {
		old := st.fencedBy.Load()
		if epoch <= old {
			return
		}
		if st.fencedBy.CompareAndSwap(old, epoch) {
			break
		}
	}
	st.offers.wake()
	// From here viewers get 410. The lock may be held by a listing that waits
	// for the store, and callers must not wait for it.
	o.wg.Go(func() { o.fence(st, epoch) })
}

func (o *Origin) fence(st *state, epoch uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.fencedBy.Load() != epoch {
		return
	}
	own := false
	for _, r := range st.runs {
		if r.start.ID.Epoch < epoch && !r.past {
			r.fence()
			r.stop()
			own = true
		}
	}
	if !own || st.placement.Epoch >= epoch {
		return
	}
	st.log.Warn("fenced by a higher epoch", "epoch", epoch, "own", st.placement.Epoch)
	o.metrics.fenced.Inc()
	st.backlog = nil
	if st.adopted != 0 { // it may be fenced twice
		st.former = st.remember(o.cfg.Now())
	}
	st.freshBroadcast(o.cfg.Now())
	st.adopted = 0 // others number now, or the next placement here
	st.touched = o.cfg.Now()
}

// MovedUntil returns when the last segment that this origin made public of a
// stream which has moved to another worker leaves the live window; the zero time
// when there is none. Until then that stream's playlists may list it.
func (o *Origin) MovedUntil() time.Time {
	var until time.Time
	latest := func(at time.Time) {
		if at.After(until) {
			until = at
		}
	}
	o.streams.Range(func(_, v any) bool {
		st := v.(*state)
		st.mu.Lock()
		defer st.mu.Unlock()
		if !st.isFenced() {
			return true
		}
		if len(st.pres.Segments) > 0 { // the fence is about to schedule their removal
			latest(o.cfg.Now().Add(st.pres.Window))
		}
		for _, e := range st.expiries {
			if e.run != nil && !e.run.past { // an earlier process's may be kept for longer
				latest(e.at)
			}
		}
		return true
	})
	return until
}

// End closes the playlists of the stream's broadcast, after all of its runs have
// stopped and listed what is whole. It returns when that is public, or with
// ctx's error.
func (o *Origin) End(ctx context.Context, id string, epoch uint64) error {
	st := o.lookup(id)
	if st == nil {
		return nil
	}
	st.mu.Lock()
	runs := slices.Collect(maps.Values(st.runs))
	st.mu.Unlock()
	for _, r := range runs {
		r.stop()
		select {
		case <-r.done:
		case <-ctx.Done():
			return fmt.Errorf("ending %s: %w", id, ctx.Err())
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.placement.Epoch != epoch || st.status == ended || st.status == gone || st.isFenced() {
		return nil
	}
	now := o.cfg.Now()
	st.status = ended
	if len(st.pres.Segments) == 0 {
		st.status = gone
	}
	st.removeAt = now.Add(st.pres.Window + o.cfg.Linger)
	if _, err := o.record(st, entry{end: true, epoch: epoch, broadcast: st.placement.Broadcast}); err != nil {
		return fmt.Errorf("ending %s: %w", id, err)
	}
	return st.publish(now)
}

// janitor removes what has expired.
func (o *Origin) janitor() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-o.ctx.Done():
			return
		case <-t.C:
		}
		var streams, bytes int64
		o.streams.Range(func(k, v any) bool {
			st := v.(*state)
			bytes += o.sweep(st)
			streams++
			return true
		})
		o.metrics.streams.Set(float64(streams))
		o.metrics.runBytes.Set(float64(bytes))
	}
}

// tombstone is how long a stream that left answers 410 rather than 404.
const tombstone = time.Hour

// sweep removes expired segments, then the directories of finished runs that
// hold nothing fetchable, then the stream itself. It returns the bytes held.
func (o *Origin) sweep(st *state) (bytes int64) {
	o.start.Lock() // a StartRun must not get a state that is being dropped
	defer o.start.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	now := o.cfg.Now()
	if st.status == ended && now.After(st.removeAt) {
		st.freshBroadcast(now)
		for i := range st.expiries {
			st.expiries[i].at = now
		}
		st.status = gone
		if err := st.publish(now); err != nil {
			st.log.Error("can't publish", "error", err)
		}
	}
	st.remove(now)
	held := map[string]bool{}
	st.files.Range(func(k, v any) bool {
		if v.(*file).path != "" {
			run, _, _ := strings.Cut(k.(string), "/")
			held[run] = true
		}
		return true
	})
	for id, r := range st.runs {
		r.mu.Lock()
		bytes += r.bytes
		r.mu.Unlock()
		select {
		case <-r.done:
		default:
			continue
		}
		if held[id.String()] {
			continue
		}
		st.dropRun(id, r)
	}
	bytes += st.sweepLeftovers(now)
	if len(st.runs) == 0 && st.left.Load() == nil && len(st.backlog) == 0 && (st.status == absent || now.Sub(st.touched) > tombstone) {
		o.streams.Delete(st.id)
	}
	return bytes
}

// dropRun forgets a run and removes its directory.
func (st *state) dropRun(id stream.RunID, r *runState) {
	delete(st.runs, id)
	for _, t := range r.tracks {
		st.files.Delete(initKey(id, t.Name))
	}
	if err := os.RemoveAll(r.start.Dir); err != nil {
		st.log.Warn("can't remove a run's directory", "run", id.String(), "error", err)
	}
}

// flusher brings the store up to date after it was away.
func (o *Origin) flusher() {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-o.ctx.Done():
			return
		case <-t.C:
		}
		empty := true
		o.streams.Range(func(_, v any) bool {
			st := v.(*state)
			o.flush(st)
			st.mu.Lock()
			empty = empty && len(st.backlog) == 0
			st.mu.Unlock()
			return o.ctx.Err() == nil
		})
		o.storeBack(empty)
	}
}

func compareNames(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) }

func sortedKeys[V any](m map[uint64]V) []uint64 { return slices.Sorted(maps.Keys(m)) }
