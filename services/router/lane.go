package router

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// What a router fetches before a viewer asks for it has lanes, one for each
// reason: so many fetches at once, and so many of one origin. A fetch that finds
// its lane full waits in line, and its reason goes on without it after a while.
// Viewers' own requests use no lane, and no lane waits for another one:
//
//	viewer's request ─────────────────────────────────┐
//	hold, follow, prefetch ──▶ in line ──▶ in flight ─┴─▶ origin
//
// An origin is left three quarters of its connections (maxConns) for viewers.
const (
	holdFetches, holdFetchesEach         = 256, 64
	followFetches, followFetchesEach     = 256, 64
	prefetchFetches, prefetchFetchesEach = 16, 8
)

var (
	// errBusy says that no place in a lane became free in time.
	errBusy = errors.New("too many segments are being fetched")
	// errSilent says so too, and that none of those that have the origin's places
	// was answered meanwhile.
	errSilent = errors.New("its origin answers none of those that are asked for")
)

// lane bounds the fetches for one reason.
type lane struct {
	name        string // its reason
	total, each int

	mu      sync.Mutex
	used    int
	origins map[string]*laneOrigin // those that have places or wait for them
	line    []*laneWaiter          // in order of arrival
}

// laneOrigin is one origin's part of a lane.
type laneOrigin struct {
	used, waiting int
	silent        int    // of used, those that were not answered yet
	answered      uint64 // fetches that were, ever
}

type laneWaiter struct {
	of   *laneOrigin
	free chan struct{} // closed when the place is given
}

// place is one fetch's, in a lane. nil is a viewer's fetch, which needs none.
type place struct {
	lane   *lane
	origin string
	of     *laneOrigin

	answered, left bool // lane.mu guards them
}

func newLane(name string, total, each int) *lane {
	return &lane{name: name, total: total, each: each, origins: map[string]*laneOrigin{}}
}

// enter waits for a place for a fetch from origin until ctx ends, and returns
// errBusy or errSilent then. One that is free is given in any case.
func (l *lane) enter(ctx context.Context, origin string) (*place, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.origins[origin]
	if of == nil {
		of = &laneOrigin{}
		l.origins[origin] = of
	}
	p := &place{lane: l, origin: origin, of: of}
	if l.fits(of) {
		l.take(of)
		return p, nil
	}
	w := &laneWaiter{of: of, free: make(chan struct{})}
	l.line = append(l.line, w)
	of.waiting++
	before := of.answered
	l.mu.Unlock()
	select {
	case <-w.free:
	case <-ctx.Done():
	}
	l.mu.Lock()
	i := slices.Index(l.line, w)
	if i < 0 { // given, if only just now
		return p, nil
	}
	l.line = slices.Delete(l.line, i, i+1)
	of.waiting--
	if of.used >= l.each && of.silent == of.used && of.answered == before {
		return nil, errSilent
	}
	l.forget(origin, of)
	return nil, errBusy
}

// fits, take, give and forget are called with l.mu held.
func (l *lane) fits(of *laneOrigin) bool { return l.used < l.total && of.used < l.each }

func (l *lane) take(of *laneOrigin) {
	l.used++
	of.used++
	of.silent++
}

// give gives what is free to those that wait.
func (l *lane) give() {
	l.line = slices.DeleteFunc(l.line, func(w *laneWaiter) bool {
		if !l.fits(w.of) {
			return false
		}
		l.take(w.of)
		w.of.waiting--
		close(w.free)
		return true
	})
}

func (l *lane) forget(origin string, of *laneOrigin) {
	if of.used == 0 && of.waiting == 0 {
		delete(l.origins, origin)
	}
}

// counts returns how many fetches are in flight and how many wait.
func (l *lane) counts() (used, waiting int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used, len(l.line)
}

// hears notes that the origin has answered.
func (p *place) hears() {
	if p == nil {
		return
	}
	p.lane.mu.Lock()
	defer p.lane.mu.Unlock()
	p.hearsLocked()
}

func (p *place) hearsLocked() {
	if !p.answered && !p.left {
		p.answered = true
		p.of.silent--
		p.of.answered++
	}
}

// leave gives the place back; answered says that the origin answered, if only
// with an error. Only the first call counts.
func (p *place) leave(answered bool) {
	if p == nil {
		return
	}
	l := p.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.left {
		return
	}
	if answered {
		p.hearsLocked()
	}
	if !p.answered {
		p.of.silent--
	}
	p.left = true
	l.used--
	p.of.used--
	l.give()
	l.forget(p.origin, p.of)
}
