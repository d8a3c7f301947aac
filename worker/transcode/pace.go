package transcode

import (
	"time"

	"github.com/dionysia-dev/dionysia/worker/origin"
)

const (
	// paceSegments is over how many of the newest segments a pace is taken.
	paceSegments = 3
	// slowPace is the pace below which a run does not keep up.
	slowPace = 0.95
	// steadyPace is what a rendition that keeps up has at least.
	steadyPace = 0.97
	// unreadLooks is how often GPAC's source is looked at before a slow run is
	// judged, once a tick of the supervision.
	unreadLooks = 10
)

// pace follows how fast a run's media time advances, rendition by rendition. A
// run is slow when a video rendition's newest segments took longer than they last
// and it has fallen a whole segment further behind than it once was: a single late
// segment, and what a source sends in bursts, do not count.
type pace struct {
	rungs map[string]*rungPace
	// looks counts the looks at the source since the run was found slow; unread
	// those that found something waiting to be read.
	looks, unread int
}

// point is when a segment was whole, and its end in media time.
type point struct {
	at    time.Time
	media time.Duration
}

type rungPace struct {
	segments int
	first    point
	points   []point // the newest, at most paceSegments+1
	least    time.Duration
	video    bool
}

// observe takes in what a run has produced.
func (p *pace) observe(rungs []origin.RungProgress) {
	if p.rungs == nil {
		p.rungs = map[string]*rungPace{}
	}
	for _, r := range rungs {
		if r.Segments == 0 {
			continue
		}
		now := point{r.LastSegmentAt, r.MediaEnd}
		s := p.rungs[r.Name]
		if s == nil || now.media < s.points[len(s.points)-1].media { // new, or its time began again
			p.rungs[r.Name] = &rungPace{segments: r.Segments, first: now, points: []point{now}, video: r.FPS > 0}
			continue
		}
		if r.Segments == s.segments {
			continue
		}
		s.segments = r.Segments
		s.points = append(s.points, now)
		if len(s.points) > paceSegments+1 {
			s.points = s.points[1:]
		}
		s.least = min(s.least, s.behind())
	}
}

// behind is how much more time than media has passed since the first segment.
func (s *rungPace) behind() time.Duration {
	last := s.points[len(s.points)-1]
	return last.at.Sub(s.first.at) - (last.media - s.first.media)
}

// value is seconds of media for each second over the newest segments, false
// while there are too few.
func (s *rungPace) value() (float64, bool) {
	if len(s.points) <= paceSegments {
		return 0, false
	}
	from, to := s.points[0], s.points[len(s.points)-1]
	if passed := to.at.Sub(from.at); passed > 0 {
		return (to.media - from.media).Seconds() / passed.Seconds(), true
	}
	return 0, false
}

// slow returns the slowest video rendition and its pace when the run does not
// keep up. segment is the segments' length.
func (p *pace) slow(segment time.Duration) (name string, value float64, ok bool) {
	for n, s := range p.rungs {
		v, known := s.value()
		if s.video && known && v < slowPace && s.behind()-s.least >= segment && (!ok || v < value || v == value && n < name) {
			name, value, ok = n, v, true
		}
	}
	return name, value, ok
}

// look counts one look at whether the source has sent what GPAC has not read.
func (p *pace) look(unread bool) {
	p.looks++
	if unread {
		p.unread++
	}
}

// delivers tells whether a slow run's source keeps up: GPAC leaves unread what it
// sends, or the sound, which costs nothing to encode, arrives in time. It is only
// known after some looks.
func (p *pace) delivers() (yes, known bool) {
	if p.looks < unreadLooks {
		return false, false
	}
	if p.unread*10 >= p.looks*8 {
		return true, true
	}
	for _, s := range p.rungs {
		if v, ok := s.value(); ok && !s.video && v >= steadyPace {
			return true, true
		}
	}
	return false, true
}

// again forgets what was seen, so that the next judgement is on new segments.
func (p *pace) again() { *p = pace{} }
