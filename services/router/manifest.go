package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

const (
	// maxManifestBytes bounds one manifest: ten minutes of 1 s segments over ten
	// renditions are well under it.
	maxManifestBytes = 4 << 20
	// maxManifests bounds the paths of one stream that are remembered at once.
	maxManifests = 256
	// manifestWait is how long a request waits for a newer manifest while there
	// is an older one to serve.
	manifestWait = 400 * time.Millisecond
	// manifestRetry is the pause after an origin failed.
	manifestRetry = 200 * time.Millisecond
	// behindTTL is how long a manifest is served without asking that lacks a number
	// which another one of its stream lists.
	behindTTL = 100 * time.Millisecond
	// manifestTimeout bounds one fetch, with re-resolving.
	manifestTimeout = 6 * time.Second
)

// manifest is one manifest's path: the last good body and the fetch in flight.
type manifest struct {
	st   *streamState
	t    target
	good atomic.Pointer[manifestBody]
	// fresh is until when good is served without asking, in unix nanoseconds.
	fresh atomic.Int64

	mu       sync.Mutex
	fetching chan struct{} // closed when the fetch in flight has ended
	holding  chan struct{} // closed when that fetch waits for segments; see hold
	err      error         // of the last fetch; nil when it was good
	retry    time.Time     // with err: not asked again before
	touched  time.Time

	// held is the fetching goroutine's: since when, and when last, a newer body
	// waited for its segments.
	held struct{ since, last time.Time }
}

// manifestBody is a manifest as it is served. It never changes.
type manifestBody struct {
	body    []byte
	uris    []string // the absolute paths of all that it lists
	version version
	epoch   uint64 // the epoch whose origin was asked
	ended   bool
	at      time.Time // when it was asked for
	header  segmentHeader
}

// manifest returns the entry of t, or nil when the stream has too many.
func (st *streamState) manifest(t target, now time.Time) *manifest {
	st.mu.Lock()
	defer st.mu.Unlock()
	m := st.manifests[t.path]
	if m == nil {
		if len(st.manifests) >= maxManifests && !st.dropGuess() {
			return nil
		}
		m = &manifest{st: st, t: t, touched: now}
		st.manifests[t.path] = m
	}
	return m
}

// dropGuess forgets the path that was longest not asked for of those that never had
// a good body: guesses must not keep what is there out. st.mu is held.
func (st *streamState) dropGuess() bool {
	var oldest string
	var at time.Time
	for path, m := range st.manifests {
		m.mu.Lock()
		if m.good.Load() == nil && m.fetching == nil && (oldest == "" || m.touched.Before(at)) {
			oldest, at = path, m.touched
		}
		m.mu.Unlock()
	}
	delete(st.manifests, oldest)
	return oldest != ""
}

// sweepManifests forgets paths that never had a good body, and those whose last one
// is older than window when nobody has asked for the stream as long: what it lists
// is not to be played any more.
func (st *streamState) sweepManifests(now time.Time, window time.Duration) {
	unused := now.Sub(time.Unix(0, st.used.Load())) > window
	st.mu.Lock()
	defer st.mu.Unlock()
	for path, m := range st.manifests {
		m.mu.Lock()
		good := m.good.Load()
		guess := good == nil && now.Sub(m.touched) > keepAbsent
		past := good != nil && unused && now.Sub(good.at) > window
		if (guess || past) && m.fetching == nil {
			delete(st.manifests, path)
		}
		m.mu.Unlock()
	}
	if len(st.manifests) == 0 {
		st.newest.Store(0)
	}
}

// serveable returns a body to serve now, and whether it is a stale one; or why
// there is none. It waits for the origin no longer than a player would bear.
func (r *Router) serveable(ctx context.Context, m *manifest) (body *manifestBody, stale bool, err error) {
	if now := time.Now().UnixNano(); now < m.fresh.Load() {
		return m.good.Load(), false, nil
	}
	err = r.fetchManifest(ctx, m)
	good := m.good.Load()
	switch {
	case good != nil && err == nil:
		return good, false, nil
	case good != nil && errors.Is(err, errHeld) && r.mayServe(m.st, good, err):
		return good, false, nil
	case good != nil && r.mayServe(m.st, good, err):
		return good, true, nil
	case err == nil:
		err = errNotLive
	}
	return nil, false, err
}

// mayServe reports whether a last good manifest is still the truth about the
// stream, given why there is no newer one.
func (r *Router) mayServe(st *streamState, good *manifestBody, why error) bool {
	if errors.Is(why, stream.ErrNotFound) {
		return false
	}
	rs := st.route.Load()
	if rs == nil || !rs.found || (rs.stale && !rs.lost) {
		return true
	}
	switch {
	case rs.lost:
		// Nothing but its origin tells whether the stream goes on.
		return time.Since(good.at) <= windowOf(rs.route)
	case !rs.route.Live:
		// Over: what was public stays fetchable for the window.
		return time.Since(good.at) <= windowOf(rs.route)
	case good.ended:
		// A later broadcast has begun; this is the end of the one before.
		return rs.route.Epoch <= good.epoch
	default:
		return true
	}
}

func windowOf(route stream.Route) time.Duration {
	return max(route.Window.Duration(), stream.MinWindow)
}

// fetchManifest makes m's body fresh, or returns why it could not be. All that
// ask at once share one fetch, which goes on when they leave.
func (r *Router) fetchManifest(ctx context.Context, m *manifest) error {
	m.mu.Lock()
	now := time.Now()
	m.touched = now
	if m.fetching == nil {
		if now.UnixNano() < m.fresh.Load() {
			m.mu.Unlock()
			return nil
		}
		if m.err != nil && now.Before(m.retry) {
			defer m.mu.Unlock()
			return m.err
		}
		done := make(chan struct{})
		m.fetching, m.holding = done, make(chan struct{})
		r.goes.Go(func() { r.runFetch(m, done) })
	}
	done, holding := m.fetching, m.holding
	m.mu.Unlock()

	if err := waitFetch(ctx, done, holding, m.good.Load() != nil); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// waitFetch waits until a fetch has ended: with something to serve instead, no
// longer than a viewer would bear.
func waitFetch(ctx context.Context, done, holding <-chan struct{}, mayLeave bool) error {
	var slow, held <-chan time.Time
	if mayLeave {
		t := time.NewTimer(manifestWait)
		defer t.Stop()
		slow = t.C
	}
	for {
		select {
		case <-done:
			return nil
		case <-holding:
			holding = nil
			t := time.NewTimer(holdPatience)
			defer t.Stop()
			held = t.C
		case <-held:
			return errHeld
		case <-slow:
			return errSlow
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// runFetch does one fetch and notes its outcome.
func (r *Router) runFetch(m *manifest, done chan struct{}) {
	ctx, cancel := context.WithTimeout(r.ctx, manifestTimeout)
	defer cancel()
	asked := time.Now()
	body, err := r.askManifest(ctx, m)
	r.metrics.upstream(m.t.kind, err)
	if err == nil {
		err = r.admit(ctx, m, body)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
	if err == nil {
		ttl := r.cfg.ManifestTTL
		if body.version.number < m.st.newest.Load() {
			ttl = min(ttl, behindTTL)
		}
		m.fresh.Store(asked.Add(ttl).UnixNano())
	} else {
		pause := manifestRetry
		if isMissing(err) {
			pause = r.cfg.NegativeTTL
		}
		m.retry = time.Now().Add(pause)
	}
	m.fetching = nil
	close(done)
}

// admit makes body the one to serve, once the router has what it lists, unless a
// newer one was served already.
func (r *Router) admit(ctx context.Context, m *manifest, body *manifestBody) error {
	if err := r.check(m, body); err != nil {
		return err
	}
	if err := r.hold(ctx, m, body); err != nil {
		return err
	}
	// A higher epoch may have been seen meanwhile.
	if err := r.check(m, body); err != nil {
		return err
	}
	before := m.good.Swap(body)
	m.st.listed(body.version, before != nil && body.version.older(before.version))
	return nil
}

// check says why body must not be served, given what is known and what was.
func (r *Router) check(m *manifest, body *manifestBody) error {
	if highest := m.st.epoch.Load(); body.epoch < highest {
		r.metrics.rejected.WithLabelValues("fenced").Inc()
		return fmt.Errorf("manifest of epoch %d: %w", body.epoch, stream.ErrFenced)
	}
	m.st.raise(body.version.run.Epoch)
	before := m.good.Load()
	// Past the window nothing that was served is playable: then a stream whose
	// numbering was lost may begin again.
	if before != nil && body.version.older(before.version) && body.at.Sub(before.at) < r.windowOf(m.st) {
		r.metrics.rejected.WithLabelValues("older").Inc()
		r.log.Warn("origin gave an older manifest than was served before", "path", m.t.path,
			"given", body.version.number, "served", before.version.number)
		return fmt.Errorf("manifest %s went back from %d to %d: %w",
			m.t.path, before.version.number, body.version.number, stream.ErrConflict)
	}
	return nil
}

func (r *Router) windowOf(st *streamState) time.Duration {
	if rs := st.route.Load(); rs != nil && rs.found {
		return windowOf(rs.route)
	}
	return stream.DefaultWindow
}

// askManifest fetches m from the origin that has the highest epoch; when that
// one is fenced, it looks for its successor once.
func (r *Router) askManifest(ctx context.Context, m *manifest) (*manifestBody, error) {
	route, err := r.routeOf(ctx, m.st)
	for try := 0; ; try++ {
		if err != nil {
			return nil, err
		}
		if !route.Live && !route.Ended {
			return nil, errNotLive
		}
		epoch := max(route.Epoch, m.st.epoch.Load())
		origin, ok := originOf(route, epoch)
		if !ok {
			return nil, fmt.Errorf("stream %s epoch %d: %w", m.st.id, epoch, errNoAsk)
		}
		body, askErr := r.askManifestOf(ctx, m, origin, epoch)
		if try > 0 || !errors.Is(askErr, statusError(http.StatusGone)) {
			return body, askErr
		}
		route, err = r.refreshRoute(ctx, m.st)
	}
}

func (r *Router) askManifestOf(ctx context.Context, m *manifest, origin string, epoch uint64) (*manifestBody, error) {
	asked := time.Now()
	resp, err := r.ask(ctx, m.st, origin, m.t.path)
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	if resp.StatusCode != http.StatusOK {
		m.st.raise(epochOf(resp.Header))
		return nil, fmt.Errorf("manifest %s: %w", m.t.path, statusError(resp.StatusCode))
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxManifestBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading manifest %s: %w", m.t.path, err)
	}
	if len(data) == 0 || len(data) > maxManifestBytes || !isManifest(m.t.kind, data) {
		return nil, fmt.Errorf("manifest %s: %d bytes that are not a whole manifest", m.t.path, len(data))
	}
	ctype := "application/vnd.apple.mpegurl"
	if m.t.kind == kindDASH {
		ctype = "application/dash+xml"
	}
	return &manifestBody{
		body: data, uris: m.listedBy(data), version: versionOf(resp.Header.Get(headerVersion), data),
		epoch: epoch, ended: isEnded(m.t.kind, data), at: asked,
		header: segmentHeader{
			contentType:   []string{ctype},
			contentLength: []string{strconv.Itoa(len(data))},
			etag:          []string{bodyTag(data)},
		},
	}, nil
}

// listedBy returns what data lists; of the bytes that were read before, without
// reading them again.
func (m *manifest) listedBy(data []byte) []string {
	if good := m.good.Load(); good != nil && bytes.Equal(good.body, data) {
		return good.uris
	}
	return listedBy(m.t.path, m.t.kind, data)
}

// isMissing reports whether an origin said that it has no such thing.
func isMissing(err error) bool {
	return errors.Is(err, statusError(http.StatusNotFound)) || errors.Is(err, errGone)
}
