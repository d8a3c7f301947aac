package origin

import (
	"errors"
	"fmt"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

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
	offered, err := o.offer(st, run, local, infos, first)
	if err != nil {
		return err
	}
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
		st.withdraw(offered)
		return fmt.Errorf("listing number %d: %w", seg.Number, err)
	}
	if st.fencedBy.Load() > run.start.ID.Epoch {
		st.expire(seg, now.Add(st.pres.Window)) // it is in the tail, so the successor lists it
		return stream.ErrFenced
	}
	if unchecked {
		o.metrics.unchecked.Inc()
	}
	if first {
		st.pres.Runs[run.start.ID] = record
		run.listed = true
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
		st.pres.Variants = variants(tracks, run.start.Full)
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

func ticks(d uint64, timescale uint32) time.Duration {
	s := d / uint64(timescale)
	rest := d % uint64(timescale)
	return time.Duration(s)*time.Second + time.Duration((rest*uint64(time.Second)+uint64(timescale)/2)/uint64(timescale))
}

// scale converts a time between time scales, rounding to the nearest.
func scale(t uint64, from, to uint32) uint64 {
	return t/uint64(from)*uint64(to) + (t%uint64(from)*uint64(to)+uint64(from)/2)/uint64(from)
}
