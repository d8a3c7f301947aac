// Package manifest composes the public HLS playlists and the DASH MPD of a
// stream from what its runs listed. It is pure: no I/O and no clock; equal
// presentations give equal bytes.
package manifest

import (
	"math"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// Presentation is one broadcast as it stands.
type Presentation struct {
	// Start is the broadcast's start: DASH's availabilityStartTime.
	Start time.Time
	// Published is the time of the newest change.
	Published time.Time
	// Segment is the nominal segment length, Window how much of the past is
	// listed, HoldBack how far behind the live edge players stay.
	Segment, Window, HoldBack time.Duration
	// Target is EXT-X-TARGETDURATION in seconds; see TargetDuration.
	Target int
	// Variants are the tracks of the broadcast's first run, with the rungs that it
	// left out for want of room; they fix the set of variant playlists.
	Variants []stream.Track
	// Runs are those that Segments refer to.
	Runs map[stream.RunID]stream.Run
	// Segments are listed, oldest first, numbers without holes.
	Segments []stream.Segment
	// Ended is set when no segment will follow.
	Ended bool
}

// TargetDuration chooses a broadcast's EXT-X-TARGETDURATION, in seconds. RFC
// 8216bis 4.4.3.8 wants a hold-back of three target durations at least, so the
// second of margin over the segment length is only there when it fits.
func TargetDuration(segment, holdBack time.Duration) int {
	t := max(1, int(math.Ceil(segment.Seconds())))
	if time.Duration(3*(t+1))*time.Second <= holdBack {
		return t + 1
	}
	return t
}

// Lost is the wall-clock time that the broadcast's outages took: how far the
// newest segment's date-time is ahead of its media time. Never negative.
func (p *Presentation) Lost() time.Duration {
	if len(p.Segments) == 0 {
		return 0
	}
	s := p.Segments[len(p.Segments)-1]
	return max(0, s.ProgramDateTime.Sub(p.Start)-s.Start)
}

// Pick returns the track of run that the variant want lists: the one of its
// name, else the nearest below it in size and bitrate, else the nearest above;
// of its own codec when the run has one, since who plays it may not play another.
// Nil means that the run has no track of that kind.
func Pick(run stream.Run, want stream.Track) *stream.Track {
	if t := nearest(run, want, func(t *stream.Track) bool { return Family(t.Codec) == Family(want.Codec) }); t != nil {
		return t
	}
	return nearest(run, want, func(*stream.Track) bool { return true })
}

func nearest(run stream.Run, want stream.Track, may func(*stream.Track) bool) *stream.Track {
	var below, above *stream.Track
	for i := range run.Tracks {
		t := &run.Tracks[i]
		switch {
		case t.Kind != want.Kind:
		case t.Name == want.Name:
			return t
		case !may(t):
		case size(*t) <= size(want):
			if below == nil || size(*t) > size(*below) {
				below = t
			}
		case above == nil || size(*t) < size(*above):
			above = t
		}
	}
	if below != nil {
		return below
	}
	return above
}

// Family is what of an RFC 6381 string tells codecs apart, such as avc1: the
// sample entry, one name for both of H.265's.
func Family(codec string) string {
	entry, _, _ := strings.Cut(codec, ".")
	switch entry {
	case "avc3":
		return "avc1"
	case "hev1":
		return "hvc1"
	}
	return entry
}

// size orders tracks of one kind: by picture, then by bitrate.
func size(t stream.Track) int64 {
	return int64(t.Width)*int64(t.Height)*1e9 + min(t.Bandwidth, 1e9-1)
}

// rates are a track's measured bits per second over the listed segments.
type rates struct{ peak, average int64 }

// measure returns the peak and the average of variant want over the listed
// segments. Segments shorter than half the target are left out of the peak, as
// RFC 8216bis 4.1 defines it; the peak is at least the configured bitrate.
func (p *Presentation) measure(want stream.Track) rates {
	var r rates
	var bits, seconds float64
	for i := range p.Segments {
		s := &p.Segments[i]
		t := Pick(p.Runs[s.Run], want)
		if t == nil || t.Timescale == 0 {
			continue
		}
		r.peak = max(r.peak, t.Bandwidth)
		part := s.Parts[t.Name]
		d := float64(part.Duration) / float64(t.Timescale)
		if d <= 0 {
			continue
		}
		b := float64(part.Size) * 8
		bits, seconds = bits+b, seconds+d
		if d >= float64(p.Target)/2 {
			r.peak = max(r.peak, int64(math.Ceil(b/d)))
		}
	}
	if seconds > 0 {
		r.average = int64(math.Ceil(bits / seconds))
	}
	if r.peak == 0 {
		r.peak = want.Bandwidth
	}
	return r
}

// latest returns the newest run, the zero Run when there is none.
func (p *Presentation) latest() stream.Run {
	if len(p.Segments) == 0 {
		return stream.Run{}
	}
	return p.Runs[p.Segments[len(p.Segments)-1].Run]
}

func (p *Presentation) variants(kind stream.TrackKind) []stream.Track {
	return ofKind(p.Variants, kind)
}

func ofKind(tracks []stream.Track, kind stream.TrackKind) []stream.Track {
	var out []stream.Track
	for _, t := range tracks {
		if t.Kind == kind {
			out = append(out, t)
		}
	}
	return out
}
