package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// routeState is the outcome of asking the store for a stream's route.
//
//	(nothing) ──asked──▶ found ◀──asked──▶ absent (the store says: no such stream)
//	    │ store away       │ store away, or its state was lost or has gone back:
//	    ▼                  ▼ kept, however old
//	  failed             found, stale
//
// A stream that was found, and is missing though nobody has deleted it, was lost; a
// route whose state knows no epoch as high as the one that was found has gone back.
// In both cases what viewers watch goes on at its origin: see docs/adr/0012.
type routeState struct {
	route stream.Route
	found bool
	err   error     // the store did not answer and nothing was known
	until time.Time // ask again after
	stale bool      // found, but the store did not answer since, or has lost it
	lost  bool      // stale, as of the store's last answer
	seen  time.Time // when the store last said that the stream is there
}

const (
	// routeWait is how long a request that knows an older route waits for a
	// newer one.
	routeWait = 100 * time.Millisecond
	// routeRetry is the pause after the store did not answer.
	routeRetry = 250 * time.Millisecond
	// routeTimeout bounds one question to the store.
	routeTimeout = 2 * time.Second
	// watchRetry is the pause before listening again for changes.
	watchRetry = time.Second
)

// streamState is all that is known of one stream.
type streamState struct {
	id    string
	route atomic.Pointer[routeState]
	used  atomic.Int64 // unix nanoseconds of the last request by a viewer
	// epoch is the highest ever seen; it only goes up.
	epoch   atomic.Uint64
	warming atomic.Bool // a warm loop runs
	// newest is the highest number that a manifest of this stream lists; news
	// tells the warm loop that it rose.
	newest atomic.Uint64
	news   chan struct{}

	mu        sync.Mutex
	asking    chan struct{} // closed when the question in flight is answered
	again     bool          // a change was announced during that question
	manifests map[string]*manifest
}

// raise notes an epoch.
func (st *streamState) raise(epoch uint64) {
	for {
		now := st.epoch.Load()
		if epoch <= now || st.epoch.CompareAndSwap(now, epoch) {
			return
		}
	}
}

// listed notes that a manifest of version v is served from now on; back, that
// the stream's numbering has begun again. The manifests that lack a number which
// is new are not fresh any more.
func (st *streamState) listed(v version, back bool) {
	if back {
		st.newest.Store(v.number)
		return
	}
	for {
		newest := st.newest.Load()
		if v.number <= newest {
			return
		}
		if st.newest.CompareAndSwap(newest, v.number) {
			break
		}
	}
	st.mu.Lock()
	for _, m := range st.manifests {
		if good := m.good.Load(); good != nil && good.version.number < v.number {
			m.fresh.Store(0)
		}
	}
	st.mu.Unlock()
	select {
	case st.news <- struct{}{}:
	default:
	}
}

// stream returns the state of id, making it when it is new.
func (r *Router) stream(id string) *streamState {
	if st, ok := r.streams.Load(id); ok {
		return st.(*streamState)
	}
	st, loaded := r.streams.LoadOrStore(id, &streamState{id: id, manifests: map[string]*manifest{}, news: make(chan struct{}, 1)})
	if !loaded {
		st.(*streamState).used.Store(time.Now().UnixNano())
	}
	return st.(*streamState)
}

// routeOf returns the route of st, at most RouteTTL old while the store
// answers, else the last that is known. The error wraps stream.ErrNotFound when
// there is no such stream.
func (r *Router) routeOf(ctx context.Context, st *streamState) (stream.Route, error) {
	rs := st.route.Load()
	if rs == nil || !time.Now().Before(rs.until) {
		answered := r.askRoute(st, false)
		var slow <-chan time.Time
		if rs != nil && rs.found {
			t := time.NewTimer(routeWait)
			defer t.Stop()
			slow = t.C
		}
		select {
		case <-answered:
		case <-slow:
		case <-ctx.Done():
			return stream.Route{}, ctx.Err()
		}
		rs = st.route.Load()
	}
	return rs.result(st.id)
}

func (rs *routeState) result(id string) (stream.Route, error) {
	switch {
	case rs == nil:
		return stream.Route{}, fmt.Errorf("route of %s: not answered", id)
	case rs.found:
		return rs.route, nil
	case rs.err != nil:
		return stream.Route{}, rs.err
	default:
		return stream.Route{}, fmt.Errorf("route of %s: %w", id, stream.ErrNotFound)
	}
}

// refreshRoute asks the store now and returns what is known afterwards.
func (r *Router) refreshRoute(ctx context.Context, st *streamState) (stream.Route, error) {
	select {
	case <-r.askRoute(st, true):
	case <-ctx.Done():
		return stream.Route{}, ctx.Err()
	}
	return st.route.Load().result(st.id)
}

// askRoute starts a question to the store, or joins the one in flight; with
// anew, one that was already in flight is followed by another, as its answer
// may be older than the change that anew stands for. The channel is closed when
// the answer is in.
func (r *Router) askRoute(st *streamState, anew bool) <-chan struct{} {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.asking != nil {
		st.again = st.again || anew
		return st.asking
	}
	done := make(chan struct{})
	st.asking = done
	r.goes.Go(func() {
		for {
			r.takeRoute(st)
			st.mu.Lock()
			if !st.again || r.ctx.Err() != nil {
				st.asking = nil
				st.mu.Unlock()
				close(done)
				return
			}
			st.again = false
			st.mu.Unlock()
		}
	})
	return done
}

// takeRoute asks the store and notes the answer.
func (r *Router) takeRoute(st *streamState) {
	ctx, cancel := context.WithTimeout(r.ctx, routeTimeout)
	defer cancel()
	asked := time.Now()
	route, err := r.deps.Store.Route(ctx, st.id)
	before := st.route.Load()
	known := before != nil && before.found
	switch {
	case known && lost(before, route, err):
		next := *before
		next.stale, next.lost, next.until = true, true, asked.Add(r.cfg.RouteTTL)
		st.route.Store(&next)
		r.storeAway.Store(false)
		if !before.stale {
			r.log.Warn("the store has lost a stream's state, keeping the route known", "stream", st.id, "epoch", before.route.Epoch, "given", route.Given)
		}
	case err == nil:
		st.raise(route.Epoch)
		st.route.Store(&routeState{route: route, found: true, seen: asked, until: asked.Add(r.cfg.RouteTTL)})
		r.storeAway.Store(false)
	case errors.Is(err, stream.ErrNotFound):
		r.storeAway.Store(false)
		st.route.Store(&routeState{until: asked.Add(r.cfg.NegativeTTL)})
		if known {
			r.log.Info("stream is gone", "stream", st.id)
			r.forget(st)
		}
	default:
		if r.ctx.Err() == nil && !r.storeAway.Swap(true) {
			r.log.Warn("store does not answer, keeping the routes known", "error", err)
		}
		next := routeState{err: fmt.Errorf("asking for the route of %s: %w", st.id, err)}
		if known {
			next = *before
			next.stale = true
		}
		next.until = time.Now().Add(routeRetry)
		st.route.Store(&next)
	}
}

// lost tells that state no longer knows what the route before said.
func lost(before *routeState, now stream.Route, err error) bool {
	if err != nil {
		return stream.Lost(err, before.seen)
	}
	return now.Given < before.route.Epoch
}

// forget drops all bytes of a deleted stream.
func (r *Router) forget(st *streamState) {
	st.mu.Lock()
	clear(st.manifests)
	st.mu.Unlock()
	st.newest.Store(0)
	r.cache.purge(st.id)
}

// watchRoutes asks for each route that the store says has changed, as long as
// the stream is known here.
func (r *Router) watchRoutes() {
	for r.ctx.Err() == nil {
		r.takeChanges(r.deps.Store.Watch(r.ctx))
		r.pause(watchRetry)
	}
}

// takeChanges handles announced changes until there will be no more.
func (r *Router) takeChanges(changes <-chan string) {
	for {
		select {
		case id, ok := <-changes:
			if !ok {
				return
			}
			if st, ok := r.streams.Load(id); ok {
				r.askRoute(st.(*streamState), true)
			}
		case <-r.ctx.Done():
			return
		}
	}
}

// originOf returns the id of the origin that has epoch's segments.
func originOf(route stream.Route, epoch uint64) (string, bool) {
	if epoch == route.Epoch && route.Origin != "" {
		return route.Origin, true
	}
	id, ok := route.Origins[epoch]
	return id, ok && id != ""
}

// sweep forgets streams that nobody asks for.
func (r *Router) sweep(now time.Time) {
	r.streams.Range(func(key, value any) bool {
		st := value.(*streamState)
		rs := st.route.Load()
		idle := now.Sub(time.Unix(0, st.used.Load()))
		// A known stream is kept long for its highest epoch; a guess is not.
		keep := keepAbsent
		if rs != nil && rs.found {
			keep = keepKnown
		}
		if idle > keep {
			r.streams.Delete(key)
			return true
		}
		st.sweepManifests(now, r.windowOf(st))
		return true
	})
}

const (
	keepAbsent = 5 * time.Second
	keepKnown  = time.Hour
	sweepEvery = 2 * time.Second
)

// sweepLoop runs sweep now and then.
func (r *Router) sweepLoop() {
	for r.pause(sweepEvery) {
		now := time.Now()
		r.sweep(now)
		r.cache.giveUp(now.Add(-unreadTimeout))
	}
}
