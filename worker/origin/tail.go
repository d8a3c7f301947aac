package origin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/origin/manifest"
)

// numberEpoch is where the numbers of a stream count from when Redis can't say
// what was used, at two per second: that stays below 2³¹ until 2060.
var numberEpoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// safeNumber is past any number that can have been used before now: no segment is
// shorter than half a second on average.
func safeNumber(now time.Time) uint64 {
	return uint64(max(0, now.Sub(numberEpoch))/(500*time.Millisecond)) + 1000
}

// adopt prepares st for the first run of a placement: what of the broadcast is
// public already, and which number follows. It returns stream.ErrFenced when a
// higher epoch exists. st.mu is held.
func (o *Origin) adopt(st *state, p stream.Placement, run stream.RunID) error {
	if st.adopted != 0 && (p.Epoch == st.adopted || p.Epoch == st.adopted+1) {
		// Nobody else can have listed since: memory is the tail.
		if st.placement.Broadcast != p.Broadcast {
			st.freshBroadcast(o.cfg.Now())
		}
		if p.Epoch == st.adopted {
			return nil
		}
		st.adopted, st.backlog = p.Epoch, nil // older entries are fenced now
		return st.trace(o, p, run)
	}
	ctx, cancel := context.WithTimeout(o.ctx, o.cfg.StoreTimeout)
	defer cancel()
	tail, err := o.cfg.Store.LoadTail(ctx, st.id)
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		st.log.Warn("can't load the tail: numbering starts past any that can have been used", "error", err)
		o.storeFailed(err)
	}
	known := err == nil || errors.Is(err, stream.ErrNotFound)
	if known {
		st.claim(o, st.examine(tail))
	}
	last, disc := tail.Last, uint64(0)
	if n := len(tail.Segments); known && n > 0 {
		last, disc = max(last, tail.Segments[n-1].Number), tail.Segments[n-1].DiscSeq
	}
	now := o.cfg.Now()
	st.freshBroadcast(now)
	f := st.former
	st.former = former{}
	switch {
	case f.follows(p, now) && len(f.pres.Segments) > 0 && last < f.next && (len(tail.Segments) == 0 || last+1 < f.next):
		st.log.Warn("the tail was lost: going on with what was listed here", "tail", last, "next", f.next)
		st.resume(f)
	case known && tail.Broadcast == p.Broadcast && len(tail.Segments) > 0 && !stale(tail, p, now):
		st.continueTail(o, tail)
		st.next, st.discSeq, st.joins = last+1, disc, true
	case known && last > 0 && tail.Broadcast != p.Broadcast && traced(tail, p.Epoch):
		st.next, st.discSeq = max(last+1, st.next), max(disc+1, st.discSeq)
	case p.Epoch == 1:
		st.next = max(last+1, st.next) // the first placement ever: nothing else can have been used
	default:
		st.next = max(safeNumber(now), last+1, st.next)
		// A discontinuity lists a number at least, so they can't outnumber them.
		st.discSeq, st.joins = st.next, true
	}
	st.adopted, st.backlog = p.Epoch, nil
	return st.trace(o, p, run)
}

// former is what an origin lists at the moment when it is fenced. If the next epoch is
// placed here too, nobody else can have listed since, and what the tail lacks of it
// was lost with Redis.
type former struct {
	pres      manifest.Presentation
	next      uint64
	discSeq   uint64
	adopted   uint64
	broadcast string
	at        time.Time
}

func (st *state) remember(now time.Time) former {
	f := former{pres: st.pres, next: st.next, discSeq: st.discSeq, adopted: st.adopted, broadcast: st.placement.Broadcast, at: now}
	f.pres.Segments, f.pres.Runs = slices.Clone(st.pres.Segments), maps.Clone(st.pres.Runs)
	return f
}

// follows tells that p is the placement after f, and that all of f is still there: it
// is fetchable for the window.
func (f former) follows(p stream.Placement, now time.Time) bool {
	return f.adopted != 0 && p.Epoch == f.adopted+1 && p.Broadcast == f.broadcast && now.Sub(f.at) < f.pres.Window
}

// resume lists again what was.
func (st *state) resume(f former) {
	st.pres, st.next, st.discSeq, st.joins = f.pres, f.next, f.discSeq, true
	st.keepListed()
}

// keepListed takes back the removal of what is listed.
func (st *state) keepListed() {
	listed := map[string]bool{}
	for _, s := range st.pres.Segments {
		for name := range s.Parts {
			listed[segmentKey(s.Run, name, s.Local)] = true
		}
	}
	st.unexpire(func(key string) bool { return listed[key] })
}

// trace leaves the run in the tail before it lists anything.
func (st *state) trace(o *Origin, p stream.Placement, run stream.RunID) error {
	r := stream.Run{ID: run, Broadcast: p.Broadcast, Origin: p.Worker, StartedAt: o.cfg.Now()}
	if _, err := o.record(st, entry{run: &r, epoch: p.Epoch}); err != nil {
		return fmt.Errorf("tracing run %s: %w", run, err)
	}
	return nil
}

// untracedAfter is how long a tail may have stood still when a placement in
// between left no run in it: no worker is found dead, replaced, and its successor
// has listed and is found dead in less.
const untracedAfter = 10 * time.Second

// stale tells that a predecessor may have listed numbers that never reached the
// tail, because Redis was away from it. A tail that has stood still for the
// hold-back counts as such: players have run dry by then, so nothing is lost by
// starting past any number that can have been used.
func stale(t stream.Tail, p stream.Placement, now time.Time) bool {
	s := t.Segments[len(t.Segments)-1]
	still := now.Sub(s.ProgramDateTime.Add(s.Duration))
	return still > max(orDefault(p.HoldBack.Duration(), stream.DefaultHoldBack), untracedAfter) ||
		still > untracedAfter && !traced(t, p.Epoch)
}

// traced tells that the placement before epoch left a run in the tail: each one
// does before it lists anything, unless Redis is away.
func traced(t stream.Tail, epoch uint64) bool {
	for _, r := range t.Runs {
		if r.ID.Epoch+1 >= epoch {
			return true
		}
	}
	return false
}

// freshBroadcast empties the list. What was listed stays fetchable for the window.
func (st *state) freshBroadcast(now time.Time) {
	if len(st.pres.Segments) > 0 {
		st.discSeq++
	}
	st.expireListed(now)
	st.pres, st.joins, st.status = manifest.Presentation{}, false, waiting
}

func (st *state) expireListed(now time.Time) {
	for _, s := range st.pres.Segments {
		st.expire(s, now.Add(st.pres.Window))
	}
	st.pres.Segments = nil
}

// continueTail lists what a predecessor made public.
func (st *state) continueTail(o *Origin, tail stream.Tail) {
	st.pres.Runs = map[stream.RunID]stream.Run{}
	for _, r := range tail.Runs {
		if len(r.Tracks) > 0 {
			st.pres.Runs[r.ID] = r
		}
	}
	for _, s := range tail.Segments {
		n := len(st.pres.Segments)
		if _, ok := st.pres.Runs[s.Run]; !ok || n > 0 && s.Number != st.pres.Segments[n-1].Number+1 {
			st.pres.Segments = nil // a list has no holes
			if !ok {
				continue
			}
		}
		st.pres.Segments = append(st.pres.Segments, s)
	}
	st.keepListed()
	newest := tail.Segments[len(tail.Segments)-1].Run
	if r, ok := st.pres.Runs[newest]; ok {
		st.pres.Variants, st.pres.Target = r.Variants, r.Target
		if len(st.pres.Variants) == 0 {
			st.pres.Variants = r.Tracks
		}
	}
	st.log.Info("continuing a predecessor's playlists", "segments", len(st.pres.Segments), "last", tail.Segments[len(tail.Segments)-1].Number)
}
