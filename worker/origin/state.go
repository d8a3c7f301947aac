package origin

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/origin/manifest"
)

// status is where a stream stands at this origin.
//
//	waiting → live → ended → gone
//	   └────────┴──────┴──→ fenced (state.fencedBy) → gone
//
// A new run of a later broadcast takes it back to waiting.
type status int

const (
	waiting status = iota // placed here, nothing listed yet
	live
	ended // the playlists are closed
	gone  // the window after the end has passed
)

// view is what viewers get; it is replaced as a whole and never changed.
type view struct {
	status    status
	epoch     uint64
	version   string // <epoch>.<run>.<newest number>
	modified  time.Time
	manifests map[string]*body // by path below /live/<stream>/
}

// body is one rendered manifest.
type body struct {
	data        []byte
	etag        string
	contentType string
}

// file is one object that may be fetched: an init in memory, or a segment on disk.
type file struct {
	data        []byte
	path        string
	size        int64
	etag        string
	contentType string
	modified    time.Time
}

// expiry removes a file from view and from disk at a time.
type expiry struct {
	at  time.Time
	key string
	run *runState
}

// state is one stream at this origin. The manifests are served from view and
// files without the lock.
type state struct {
	id  string
	log hclog.Logger

	view     atomic.Pointer[view]
	files    sync.Map      // path below seg/ → *file
	fencedBy atomic.Uint64 // the highest foreign epoch above ours; 0 when not fenced

	mu        sync.Mutex
	placement stream.Placement // of the newest run
	status    status
	pres      manifest.Presentation
	next      uint64 // the number that the next segment gets
	discSeq   uint64 // discontinuities so far
	joins     bool   // the next run has a predecessor in this broadcast
	adopted   uint64 // the epoch whose tail was loaded
	runs      map[stream.RunID]*runState
	expiries  []expiry
	backlog   []entry
	touched   time.Time
	removeAt  time.Time // of an ended stream
}

func newState(id string, log hclog.Logger) *state {
	st := &state{id: id, log: log.With("stream", id), runs: map[stream.RunID]*runState{}}
	st.view.Store(&view{})
	return st
}

func (st *state) isFenced() bool { return st.fencedBy.Load() > st.view.Load().epoch }

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
		fresh := p.Epoch != st.adopted
		st.adopted = p.Epoch
		if fresh {
			return st.trace(o, p, run)
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(o.ctx, o.cfg.StoreTimeout)
	defer cancel()
	tail, err := o.cfg.Store.LoadTail(ctx, st.id)
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		st.log.Warn("can't load the tail: numbering starts past any that can have been used", "err", err)
		o.storeFailed(err)
	}
	known := err == nil || errors.Is(err, stream.ErrNotFound)
	last, disc := tail.Last, uint64(0)
	if n := len(tail.Segments); known && n > 0 {
		last, disc = max(last, tail.Segments[n-1].Number), tail.Segments[n-1].DiscSeq
	}
	now := o.cfg.Now()
	st.freshBroadcast(now)
	switch {
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
	st.adopted = p.Epoch
	return st.trace(o, p, run)
}

// trace leaves the run in the tail before it lists anything.
func (st *state) trace(o *Origin, p stream.Placement, run stream.RunID) error {
	r := stream.Run{ID: run, Broadcast: p.Broadcast, Origin: p.Worker, StartedAt: o.cfg.Now()}
	if _, err := o.record(st, entry{run: &r, epoch: p.Epoch}); err != nil {
		return fmt.Errorf("tracing run %s: %w", run, err)
	}
	return nil
}

// How long a tail may have stood still before numbers must be reckoned with that
// never reached it, because Redis was away from the worker that used them.
const (
	// staleAfter is beyond the stream's grace, when the last placement is the
	// one that wrote the tail.
	staleAfter = 20 * time.Second
	// untracedAfter is for when a placement in between left no run in the tail:
	// no worker is found dead, replaced, and its successor listed and found dead
	// in less.
	untracedAfter = 10 * time.Second
)

// stale tells that a predecessor may have listed more than the tail says.
func stale(t stream.Tail, p stream.Placement, now time.Time) bool {
	s := t.Segments[len(t.Segments)-1]
	still := now.Sub(s.ProgramDateTime.Add(s.Duration))
	return still > p.Grace.Duration()+staleAfter || still > untracedAfter && !traced(t, p.Epoch)
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
	newest := tail.Segments[len(tail.Segments)-1].Run
	if r, ok := st.pres.Runs[newest]; ok {
		st.pres.Variants, st.pres.Target = r.Variants, r.Target
		if len(st.pres.Variants) == 0 {
			st.pres.Variants = r.Tracks
		}
	}
	st.log.Info("continuing a predecessor's playlists", "segments", len(st.pres.Segments), "last", tail.Segments[len(tail.Segments)-1].Number)
}

// configure takes the settings that a placement carries.
func (st *state) configure(p stream.Placement) {
	st.placement = p
	st.pres.Segment = p.Profile.Segment.Duration()
	if st.pres.Segment <= 0 {
		st.pres.Segment = 2 * time.Second
	}
	st.pres.Window = orDefault(p.Window.Duration(), stream.DefaultWindow)
	st.pres.HoldBack = orDefault(p.HoldBack.Duration(), stream.DefaultHoldBack)
	st.pres.Start = p.BroadcastStart
	if st.pres.Target == 0 {
		st.pres.Target = manifest.TargetDuration(st.pres.Segment, st.pres.HoldBack)
	}
	if st.pres.Runs == nil {
		st.pres.Runs = map[stream.RunID]stream.Run{}
	}
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// list makes the next local number of run public. infos has run.tracks' order;
// written is when the last of its files was complete. It returns
// stream.ErrFenced when the run may list nothing any more.
func (o *Origin) list(st *state, run *runState, local uint64, infos []segmentInfo, written time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.fencedBy.Load() > run.start.ID.Epoch || st.placement.Epoch > run.start.ID.Epoch {
		return stream.ErrFenced
	}
	now := o.cfg.Now()
	seg := stream.Segment{Number: st.next, Run: run.start.ID, Local: local, DiscSeq: st.discSeq, Parts: map[string]stream.Part{}}
	for i, t := range run.tracks {
		seg.Parts[t.Name] = stream.Part{Time: infos[i].time, Duration: infos[i].duration, Size: infos[i].size}
	}
	ref := run.tracks[0] // video when there is video
	seg.Duration = ticks(infos[0].duration, ref.Timescale)

	entries := []entry{}
	first := !run.listed
	var record stream.Run
	if first {
		st.beginRun(&seg, run, written)
		record = o.runRecord(st, run, &seg, infos)
		entries = append(entries, entry{run: &record, epoch: run.start.ID.Epoch})
	} else {
		prev := st.pres.Segments[len(st.pres.Segments)-1]
		seg.Start = place(prev, st.pres.Runs[run.start.ID], seg.Parts[ref.Name].Time)
		seg.ProgramDateTime = prev.ProgramDateTime.Add(seg.Start - prev.Start)
	}
	entries = append(entries, entry{segment: &seg, broadcast: st.placement.Broadcast,
		epoch: run.start.ID.Epoch, window: st.pres.Window})
	unchecked, err := o.record(st, entries...)
	if conflict := (conflictError{}); errors.As(err, &conflict) {
		// Others listed numbers that we took for free: go on above them, with
		// nothing older listed.
		st.log.Warn("the tail is ahead of us", "number", seg.Number, "tail", conflict.last)
		st.expireListed(now)
		seg.Number, seg.Discontinuity, seg.DiscSeq = conflict.last+1, true, max(seg.DiscSeq, conflict.disc)+1
		unchecked, err = o.record(st, entries[len(entries)-1])
	}
	if err != nil {
		return fmt.Errorf("listing number %d: %w", seg.Number, err)
	}
	if st.fencedBy.Load() > run.start.ID.Epoch {
		return stream.ErrFenced
	}
	if unchecked {
		o.metrics.unchecked.Inc()
	}
	if first {
		st.pres.Runs[run.start.ID] = record
		run.listed = true
		for i, t := range run.tracks {
			st.files.Store(fmt.Sprintf("%s/%s/init.mp4", run.start.ID, t.Name),
				&file{data: run.made[i].init.bytes, etag: etag(run.made[i].init.bytes), contentType: mediaType(t.Kind), modified: now})
		}
	}
	for i, t := range run.tracks {
		key := segmentKey(run.start.ID, t.Name, local)
		st.files.Store(key, &file{path: filepath.Join(run.start.Dir, fileName(run.made[i].prefix, local)), size: infos[i].size,
			etag: `"` + fmt.Sprintf("%s-%s-%d", run.start.ID, t.Name, local) + `"`, contentType: mediaType(t.Kind), modified: now})
	}
	st.pres.Segments = append(st.pres.Segments, seg)
	st.next, st.discSeq, st.status, st.joins = seg.Number+1, seg.DiscSeq, live, true
	st.trim(now)
	if err := st.publish(now); err != nil {
		return err
	}
	o.metrics.listed.Inc()
	o.metrics.delay.Observe(max(0, o.cfg.Now().Sub(written)).Seconds())
	return nil
}

// place returns where the segment after prev, whose media time in the run's
// reference track is t, begins in the broadcast: where its media time says, so
// that rounded durations don't add up over hours; prev's end when the media
// jumped.
func place(prev stream.Segment, run stream.Run, t uint64) time.Duration {
	ref := run.Tracks[0]
	end := prev.Start + prev.Duration
	at := run.Start + ticks(t, ref.Timescale) - ticks(ref.TimeOffset, ref.Timescale)
	if d := at - end; d.Abs() > prev.Duration/4 {
		return end
	}
	return at
}

// beginRun places the first segment of a run behind its predecessor, or at its
// own time when it begins the broadcast.
func (st *state) beginRun(seg *stream.Segment, run *runState, written time.Time) {
	seg.ProgramDateTime = written.Add(-seg.Duration).Round(time.Millisecond)
	if st.pres.Start.IsZero() {
		st.pres.Start = seg.ProgramDateTime
	}
	if n := len(st.pres.Segments); n > 0 {
		prev := st.pres.Segments[n-1]
		seg.Start = prev.Start + prev.Duration
		if end := prev.ProgramDateTime.Add(prev.Duration); seg.ProgramDateTime.Before(end) {
			seg.ProgramDateTime = end
		}
	} else {
		seg.Start = max(0, seg.ProgramDateTime.Sub(st.pres.Start)).Round(time.Millisecond)
	}
	if st.joins {
		seg.Discontinuity = true
		seg.DiscSeq = st.discSeq + 1
	}
}

// runRecord is what a successor needs to know of run.
func (o *Origin) runRecord(st *state, run *runState, seg *stream.Segment, infos []segmentInfo) stream.Run {
	tracks := append([]stream.Track(nil), run.tracks...)
	// All tracks start at the same media time, the reference track's, so that
	// audio and video stay together.
	ref := tracks[0]
	for i := range tracks {
		tracks[i].TimeOffset = scale(infos[0].time, ref.Timescale, tracks[i].Timescale)
	}
	if len(st.pres.Variants) == 0 {
		st.pres.Variants = tracks
	}
	return stream.Run{ID: run.start.ID, Broadcast: st.placement.Broadcast, Origin: st.placement.Worker,
		StartedAt: run.started, Tracks: tracks, Start: seg.Start, Target: st.pres.Target, Variants: st.pres.Variants}
}

// trim takes from the list what the window no longer holds.
func (st *state) trim(now time.Time) {
	var total time.Duration
	for _, s := range st.pres.Segments {
		total += s.Duration
	}
	for len(st.pres.Segments) > 1 && total-st.pres.Segments[0].Duration >= st.pres.Window {
		s := st.pres.Segments[0]
		total -= s.Duration
		st.pres.Segments = st.pres.Segments[1:]
		st.expire(s, now.Add(st.pres.Window))
	}
	used := map[stream.RunID]bool{}
	for _, s := range st.pres.Segments {
		used[s.Run] = true
	}
	for id := range st.pres.Runs {
		if !used[id] {
			delete(st.pres.Runs, id)
		}
	}
}

// expire schedules the removal of what this origin holds of s.
func (st *state) expire(s stream.Segment, at time.Time) {
	run := st.runs[s.Run]
	for name := range s.Parts {
		key := segmentKey(s.Run, name, s.Local)
		if _, ok := st.files.Load(key); ok {
			st.expiries = append(st.expiries, expiry{at: at, key: key, run: run})
		}
	}
}

// publish renders all manifests and makes them public in one step.
func (st *state) publish(now time.Time) error {
	st.touched = now
	v := &view{status: st.status, epoch: st.placement.Epoch, modified: now, manifests: map[string]*body{}}
	if n := len(st.pres.Segments); n > 0 && st.status != gone {
		newest := st.pres.Segments[n-1]
		v.version = fmt.Sprintf("%d.%d.%d", newest.Run.Epoch, newest.Run.Run, newest.Number)
		st.pres.Published, st.pres.Ended = now, st.status == ended
		master, err := st.pres.Master()
		if err != nil {
			return fmt.Errorf("composing the master playlist: %w", err)
		}
		mpd, err := st.pres.MPD()
		if err != nil {
			return fmt.Errorf("composing the MPD: %w", err)
		}
		v.manifests["master.m3u8"] = newBody(master, typeHLS)
		v.manifests["manifest.mpd"] = newBody(mpd, typeDASH)
		for _, t := range st.pres.Variants {
			m, err := st.pres.Media(t.Name)
			if err != nil {
				return fmt.Errorf("composing a media playlist: %w", err)
			}
			v.manifests[t.Name+"/index.m3u8"] = newBody(m, typeHLS)
		}
	}
	st.view.Store(v)
	return nil
}

func newBody(b []byte, contentType string) *body {
	return &body{data: b, etag: etag(b), contentType: contentType}
}

func etag(b []byte) string {
	h := fnv.New64a()
	h.Write(b)
	return fmt.Sprintf(`"%016x-%x"`, h.Sum64(), len(b))
}

func segmentKey(run stream.RunID, track string, local uint64) string {
	return fmt.Sprintf("%s/%s/%d.m4s", run, track, local)
}

// remove deletes from view and disk what has expired by now.
func (st *state) remove(now time.Time) {
	keep := st.expiries[:0]
	for _, e := range st.expiries {
		if now.Before(e.at) {
			keep = append(keep, e)
			continue
		}
		if v, ok := st.files.LoadAndDelete(e.key); ok {
			if err := os.Remove(v.(*file).path); err != nil && !errors.Is(err, os.ErrNotExist) {
				st.log.Warn("can't remove a segment", "err", err)
			}
		}
	}
	clear(st.expiries[len(keep):])
	st.expiries = keep
}

func ticks(d uint64, timescale uint32) time.Duration {
	s := d / uint64(timescale)
	rest := d % uint64(timescale)
	return time.Duration(s)*time.Second + time.Duration((rest*uint64(time.Second)+uint64(timescale)/2)/uint64(timescale))
}

// scale converts a time between time scales, rounding to the nearest.
func scale(t uint64, from, to uint32) uint64 {
	return t/uint64(from)*uint64(to) + (t%uint64(from)*uint64(to)+uint64(from)/2)/uint64(from)
}
