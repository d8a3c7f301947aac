package placement

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// degraded yields what is left of a profile, and what was dropped, when its top
// rungs go one by one: the largest in px/s first, of equals the one with the
// higher bitrate, then by name. One rung always stays. Both lists keep the
// profile's order.
func degraded(p stream.Profile) iter.Seq2[stream.Profile, []stream.VideoRendition] {
	return func(yield func(stream.Profile, []stream.VideoRendition) bool) {
		order := slices.Clone(p.Video)
		slices.SortFunc(order, func(a, b stream.VideoRendition) int {
			return cmp.Or(cmp.Compare(pixels(b), pixels(a)), cmp.Compare(b.Bitrate, a.Bitrate), strings.Compare(a.Name, b.Name))
		})
		for n := 1; n < len(order); n++ {
			gone := func(v stream.VideoRendition) bool {
				return slices.ContainsFunc(order[:n], func(o stream.VideoRendition) bool { return o.Name == v.Name })
			}
			left, dropped := p, []stream.VideoRendition{}
			left.Video = nil
			for _, v := range p.Video {
				if gone(v) {
					dropped = append(dropped, v)
				} else {
					left.Video = append(left.Video, v)
				}
			}
			if !yield(left, dropped) {
				return
			}
		}
	}
}

// Restore says whether a placement that was degraded now fits with its whole
// profile, its own reservations given back; where it is, when there is room.
func Restore(s *Snapshot, p Placed) (Decision, bool) {
	if !p.Degraded {
		return Decision{}, false
	}
	r := p.Request
	r.Own, r.Stay, r.Degrade, r.Failover = p.own(), p.Worker, false, false
	d, err := Decide(s, r)
	return d, err == nil
}

// smallest is the least that a profile may be degraded to.
func smallest(p stream.Profile) stream.Profile {
	least := p
	for left := range degraded(p) {
		least = left
	}
	return least
}

func pixels(v stream.VideoRendition) float64 {
	fps := v.FPS
	if fps == 0 {
		fps = stream.NominalFPS
	}
	return float64(v.Width) * float64(v.Height) * fps
}
