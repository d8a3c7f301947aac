package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// A router lists only what it holds: of a stream that it keeps warm, a manifest
// is given out once the segments that it newly lists are in memory. So its
// viewers never learn of a segment that dies with its host.
//
//	                ┌─ lists nothing new ───────────────────────────────▶ given out
//	newer manifest ─┤         ┌─ all held ──────────────────────────────▶ given out
//	                └─ fetch ─┼─ holdTime has passed and they come ─────▶ given out, counted
//	                          ├─ the lane is full for holdTime ─────────▶ given out, counted
//	                          ├─ a former origin's can't be had ────────▶ given out, counted
//	                          └─ the origin that gave it fails ─────────▶ the former one stays
//
// In the last case the manifest is asked for again: an origin that still answers
// and still can't give what it lists gets holdTime in all.
const (
	// holdTime bounds the wait for segments: a quarter of a segment of 2 s, and
	// many times what one takes to fetch from the next host.
	holdTime = 500 * time.Millisecond
	// holdPatience is how long a viewer waits meanwhile before it gets the former
	// manifest.
	holdPatience = 100 * time.Millisecond
	// holdForgets is when a failure to hold is no longer counted as the same.
	holdForgets = 2 * time.Second
	// maxHeld bounds the segments that one manifest waits for. More than these are
	// a window's, not what is new.
	maxHeld = 256
)

var (
	// errHeld says that a newer manifest is there, and its segments are not yet.
	errHeld = errors.New("the newest segments are being fetched")
	// errUnheld says that the newer manifest's origin did not give them.
	errUnheld = errors.New("its origin does not give what it lists")
)

// awaited is a segment that a manifest waits for.
type awaited struct {
	own   bool // of the origin that gave the manifest
	begun bool // its origin has answered
}

// outcome is news of one: that it has begun, or how it has ended.
type outcome struct {
	a     *awaited
	begun bool
	err   error
}

// hold fetches what body lists newly and returns when it may be given out, or
// the error for which it may not. The first manifest of a path, and one that
// shares nothing with its predecessor, is not held: that would be the whole window.
func (r *Router) hold(ctx context.Context, m *manifest, body *manifestBody) error {
	before := m.good.Load()
	if r.cfg.NoPrefetch || before == nil || !m.st.warming.Load() || body.at.Sub(before.at) > r.windowOf(m.st) {
		return nil
	}
	var missing []target
	for _, t := range m.newly(before, body) {
		if !r.cache.holds(t.path) {
			missing = append(missing, t)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if len(missing) > maxHeld {
		r.metrics.unheld.WithLabelValues(unheldMany).Inc()
		return nil
	}
	start := time.Now()
	defer func() { r.metrics.held.Observe(time.Since(start).Seconds()) }()
	if start.Sub(m.held.last) > holdForgets {
		m.held.since = start
	}
	defer func() { m.held.last = time.Now() }()
	close(m.holding)
	unheld, err := r.holdAll(ctx, m.st, body, missing, m.held.since.Add(holdTime))
	if err != nil {
		// Not wrapped: it is not the manifest that is missing.
		return fmt.Errorf("manifest %s: %w: %v", m.t.path, errUnheld, err)
	}
	if unheld != "" {
		r.metrics.unheld.WithLabelValues(unheld).Inc()
		r.log.Info("a manifest lists segments that are not held here", "path", m.t.path, "number", body.version.number, "why", unheld)
	}
	m.held.since = time.Time{}
	return nil
}

// newly returns the segments that body lists and before did not.
func (m *manifest) newly(before, body *manifestBody) []target {
	known := make(map[string]struct{}, len(before.uris))
	for _, path := range before.uris {
		known[path] = struct{}{}
	}
	var out []target
	for _, path := range body.uris {
		if _, ok := known[path]; ok {
			continue
		}
		known[path] = struct{}{}
		if t, err := parsePath(path); err == nil && t.kind == kindSegment && t.stream == m.st.id {
			out = append(out, t)
		}
	}
	return out
}

// Why a manifest is given out though not all that it lists is held.
const (
	unheldSlow    = "slow"
	unheldMissing = "missing"
	unheldBusy    = "busy"
	unheldMany    = "many"
)

// holdAll fetches the segments and waits for them until limit. It returns why
// not all are held, "" when they are, or the error of the origin that gave body.
func (r *Router) holdAll(ctx context.Context, st *streamState, body *manifestBody, missing []target, limit time.Time) (unheld string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outcomes := make(chan outcome, 2*len(missing))
	waiting := map[*awaited]struct{}{}
	for _, t := range missing {
		a := &awaited{own: t.run.Epoch == body.epoch}
		waiting[a] = struct{}{}
		r.goes.Go(func() { r.holdOne(ctx, st, t, a, outcomes) })
	}
	timer := time.NewTimer(time.Until(limit))
	defer timer.Stop()
	late := false
	for len(waiting) > 0 && (!late || !comes(waiting)) {
		select {
		case news := <-outcomes:
			if news.begun {
				news.a.begun = true
				continue
			}
			delete(waiting, news.a)
			switch {
			case news.err == nil:
			case errors.Is(news.err, errBusy):
				unheld = unheldBusy
			case news.a.own && time.Now().Before(limit) && !errors.Is(news.err, errNoMemory):
				return "", news.err
			case news.a.own && !answered(news.err):
				return "", news.err
			default:
				unheld = unheldMissing
			}
		case <-timer.C:
			late = true
		}
	}
	if len(waiting) > 0 {
		unheld = unheldSlow
	}
	return unheld, nil
}

// holdOne fetches one segment and tells when it begins to come and how that ends.
// It waits for its turn as long as for a segment.
func (r *Router) holdOne(ctx context.Context, st *streamState, t target, a *awaited, outcomes chan<- outcome) {
	turn, cancel := context.WithTimeout(ctx, holdTime)
	o, err := r.fetchAhead(turn, r.holdLane, st, t)
	cancel()
	if err == nil {
		defer r.cache.release(o)
		if _, err = o.waitHead(ctx); err == nil {
			outcomes <- outcome{a: a, begun: true}
			err = waitWhole(ctx, o)
		}
	}
	outcomes <- outcome{a: a, err: err}
}

// comes reports whether what is still waited for comes, or is a former origin's,
// which has had its time. An origin that does not answer at all has died, for
// all that is known: its segments are waited for as long as a fetch is.
func comes(waiting map[*awaited]struct{}) bool {
	for a := range waiting {
		if a.own && !a.begun {
			return false
		}
	}
	return true
}

// answered reports whether err is an origin's answer, or our own refusal, rather
// than the lack of one.
func answered(err error) bool {
	var status statusError
	return errors.As(err, &status) || isMissing(err) || errors.Is(err, errNoMemory) || errors.Is(err, errTooLarge) || errors.Is(err, stream.ErrNotFound)
}
