package router

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// While a stream is watched, its router keeps the live window in memory: all
// its playlists, the DASH manifest, and each segment that they list, of every
// rendition, asked for or not. So a player that changes rendition while the
// origin is away, and one that comes new, find what was public.
//
//	idle ──manifest served──▶ warming ──watchedFor without a request──▶ idle
//
// It looks at all of them once a second, and at once when one of them lists a
// number that no other did: the others have it too. The first round takes the segments within hold_back of the live edge (twice,
// for players that lag); every later one those newly listed, and those that
// failed. What the byte limit evicts is not fetched again but by a viewer.
const (
	warmEvery = time.Second
	// watchedFor is how long after the last request a stream counts as watched.
	watchedFor = 15 * time.Second
	// prefetchTime bounds the wait for one segment.
	prefetchTime = unreadTimeout / 2
)

// warmer is the state of one stream's warm loop.
type warmer struct {
	r    *Router
	st   *streamState
	done map[string]struct{} // segments listed in the last round; nil: none was

	mu     sync.Mutex
	failed []string // prefetches to try again
}

// keepWarm starts st's warm loop unless it runs.
func (r *Router) keepWarm(st *streamState) {
	if r.cfg.NoPrefetch || st.warming.Load() || !st.warming.CompareAndSwap(false, true) {
		return
	}
	r.goes.Go(func() {
		defer st.warming.Store(false)
		r.watched.Add(1)
		defer r.watched.Add(-1)
		w := &warmer{r: r, st: st}
		ctx, cancel := context.WithCancel(r.ctx)
		defer cancel()
		r.goes.Go(func() { r.follow(ctx, st) })
		for time.Since(time.Unix(0, st.used.Load())) < watchedFor {
			if w.round() && r.ctx.Err() == nil {
				continue // it has waited long enough
			}
			if !r.pauseFor(st.news, warmEvery) {
				return
			}
		}
	})
}

// pauseFor waits for news, d at most, and reports whether the router still runs.
func (r *Router) pauseFor(news <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-news:
		return true
	case <-r.ctx.Done():
		return false
	}
}

// round refreshes the stream's manifests and fetches what they newly list. It
// returns whether something found no place in the lane for a second.
func (w *warmer) round() (putOff bool) {
	base := livePrefix + w.st.id + "/"
	listed := map[string]struct{}{}
	w.mu.Lock()
	again := w.failed
	w.failed = nil
	w.mu.Unlock()
	bodies := w.all(w.playlists(base), base+manifestFile)
	ctx, cancel := context.WithTimeout(w.r.ctx, warmEvery)
	defer cancel()
	for _, body := range bodies {
		for _, segment := range w.worth(body) {
			if _, asked := w.done[segment]; !asked {
				putOff = !w.prefetch(ctx, segment) || putOff
			}
		}
		for _, segment := range body.uris {
			listed[segment] = struct{}{}
		}
	}
	for _, segment := range again {
		if _, still := listed[segment]; still {
			putOff = !w.prefetch(ctx, segment) || putOff
		}
	}
	if len(listed) > 0 {
		w.done = listed
	}
	return putOff
}

// playlists returns the paths of the media playlists that the master lists.
func (w *warmer) playlists(base string) []string {
	master := w.get(base + masterFile)
	if master == nil {
		return nil
	}
	return master.uris
}

// all asks for the playlists and the MPD at once, and returns the playlists that
// could be had.
func (w *warmer) all(playlists []string, mpd string) []*manifestBody {
	got := make([]*manifestBody, len(playlists))
	var asking sync.WaitGroup
	for i, path := range playlists {
		asking.Go(func() { got[i] = w.get(path) })
	}
	w.get(mpd)
	asking.Wait()
	return slices.DeleteFunc(got, func(b *manifestBody) bool { return b == nil })
}

// get returns the manifest at path, fresh if that can be had, or nil.
func (w *warmer) get(path string) *manifestBody {
	t, err := parsePath(path)
	if err != nil || t.stream != w.st.id || t.kind == kindSegment {
		return nil
	}
	m := w.st.manifest(t, time.Now())
	if m == nil {
		return nil
	}
	if time.Now().UnixNano() >= m.fresh.Load() {
		// What can't be had is fetched again next round.
		_ = w.r.fetchManifest(w.r.ctx, m)
	}
	return m.good.Load()
}

// worth leaves out, in the first round, what lies too far back from the live
// edge for players to ask for it.
func (w *warmer) worth(body *manifestBody) []string {
	uris := body.uris
	if w.done != nil {
		return uris
	}
	back := 2 * defaultBack
	if rs := w.st.route.Load(); rs != nil && rs.found && rs.route.HoldBack > 0 {
		back = 2 * int(rs.route.HoldBack)
	}
	// Init segments are few; media segments are 1 s or longer.
	keep := back / max(1, int(targetDuration(body.body)))
	var media int
	for i := len(uris) - 1; i >= 0; i-- {
		if strings.HasSuffix(uris[i], segmentExt) {
			if media++; media > keep {
				return append(initsOf(uris[:i+1]), uris[i+1:]...)
			}
		}
	}
	return uris
}

const defaultBack = 12 // seconds, stream.DefaultHoldBack

func initsOf(uris []string) []string {
	var inits []string
	for _, uri := range uris {
		if strings.HasSuffix(uri, initFile) {
			inits = append(inits, uri)
		}
	}
	return inits
}

// prefetch fetches a segment in the background. It waits for its turn until ctx
// ends, then it is for the next round, and the result is false.
func (w *warmer) prefetch(ctx context.Context, path string) bool {
	t, err := parsePath(path)
	if err != nil || t.stream != w.st.id || t.kind != kindSegment || w.r.cache.holds(path) {
		return true
	}
	if w.r.cache.fills(path) {
		w.again(path) // should it fail
		return true
	}
	o, err := w.r.fetchAhead(ctx, w.r.prefetchLane, w.st, t)
	if err != nil {
		w.again(path)
		return !errors.Is(err, errBusy) && !errors.Is(err, errSilent)
	}
	w.r.goes.Go(func() {
		defer w.r.cache.release(o)
		ctx, cancel := context.WithTimeout(w.r.ctx, prefetchTime)
		defer cancel()
		if waitWhole(ctx, o) != nil {
			w.again(path)
		}
	})
	return true
}

// again has path fetched in the next round, if it is listed then.
func (w *warmer) again(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = append(w.failed, path)
}
