package placement

import (
	"cmp"
	"math/bits"
	"strings"
)

// SmallPx is what a ladder costs on a CPU, in px/s of x264's veryfast, up to
// which it gains little from a GPU: 360p at 30 frames per second and less. The
// decoding, which stays on the host's CPU, is a third of it, and each rendition
// takes an encoder session and some 40 MiB of the card however small it is.
const SmallPx = 20_000_000

// Score orders the devices that have room. The fields weigh in their order.
type Score struct {
	// Stay: it is of the worker that the request wants to stay at.
	Stay bool `json:"stay"`
	// Prefer has a bit for each preferred rule that holds, the first the highest
	// of 16.
	Prefer uint16 `json:"prefer"`
	// Tier, the lowest best: what the ladder gains most from. A large ladder goes
	// to a GPU (0), then to the CPU of a worker without GPU (1), then to a CPU
	// that decodes for GPUs (2). A small one (SmallPx) goes to the CPU of a worker
	// without GPU (0), then to a GPU (1), then to the rest (2).
	Tier int `json:"tier"`
	// Spare counts the codecs that the device has and the ladder does not need;
	// the fewest win, when packing. It keeps cards with AV1 for AV1.
	Spare int `json:"spare"`
	// Share is how full the fullest of the device's resources would be, 0 to 1:
	// the highest wins when packing, the lowest otherwise.
	Share float64 `json:"share"`
}

// Preferred is how many of the preferred rules hold.
func (s Score) Preferred() int { return bits.OnesCount16(s.Prefer) }

// score ranks a device that fits.
func (q *query) score(hi, di int, share float64) Score {
	h := &q.v.hosts[hi]
	r := &h.rows[di]
	s := Score{Stay: hi == q.stay, Prefer: q.ruled(h, r.kind).prefer, Tier: q.tier(h, r), Share: share}
	if q.s.Policy.Pack {
		s.Spare = bits.OnesCount8(uint8(r.codecs &^ q.codecs))
	}
	return s
}

func (q *query) tier(h *host, r *row) int {
	switch {
	case r.kind == onGPU && q.small:
		return 1
	case r.kind == onGPU:
		return 0
	case h.gpus:
		return 2
	case q.small:
		return 0
	}
	return 1
}

// class compares two scores but for how full the devices are.
func class(a, b Score) int {
	switch {
	case a.Stay != b.Stay:
		if a.Stay {
			return -1
		}
		return 1
	case a.Prefer != b.Prefer:
		return cmp.Compare(b.Prefer, a.Prefer)
	case a.Tier != b.Tier:
		return a.Tier - b.Tier
	}
	return a.Spare - b.Spare
}

// better compares two scores: negative when a is the better one, 0 when only the
// names can tell.
func better(a, b Score, pack bool) int {
	if c := class(a, b); c != 0 {
		return c
	}
	if pack {
		return cmp.Compare(b.Share, a.Share)
	}
	return cmp.Compare(a.Share, b.Share)
}

// found is a device that fits.
type found struct {
	rowRef
	score Score
}

// before is the total order of what fits: by score, then by name.
func (q *query) before(a, b found) bool {
	c := better(a.score, b.score, q.s.Policy.Pack)
	if c == 0 {
		c = q.byName(a.rowRef, b.rowRef)
	}
	return c < 0
}

func (q *query) byName(a, b rowRef) int {
	wa, wb := &q.s.Workers[a.host].Report, &q.s.Workers[b.host].Report
	if c := strings.Compare(wa.Worker, wb.Worker); c != 0 || a.device < 0 || b.device < 0 {
		return c
	}
	return strings.Compare(wa.Devices[a.device].ID, wb.Devices[b.device].ID)
}

// best is the best device that fits. A device that could not be better than what
// was found, however empty it is, is not looked at.
func (q *query) best() (found, bool) {
	var best found
	ok := false
	for hi := range q.v.hosts {
		h := &q.v.hosts[hi]
		if h.reason != Fits {
			continue
		}
		for di := range h.rows {
			f := found{rowRef{hi, di}, q.score(hi, di, 0)}
			if ok && class(f.score, best.score) > 0 {
				continue
			}
			reason, share := q.judge(hi, di)
			if reason != Fits {
				continue
			}
			f.score.Share = share
			if !ok || q.before(f, best) {
				best, ok = f, true
			}
		}
	}
	return best, ok
}
