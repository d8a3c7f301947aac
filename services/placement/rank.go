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

// KeepAbove is how full, 0 to 1, a GPU may become with ladders that CPUs can do
// as well while there is room for those on CPUs. What only GPUs can do, such as
// HEVC, finds the rest of it.
const KeepAbove = 0.75

// Score orders the devices that have room. The fields weigh in their order.
type Score struct {
	// Stay: it is of the worker that the request wants to stay at.
	Stay bool `json:"stay"`
	// Prefer has a bit for each preferred rule that holds, the first the highest
	// of 16.
	Prefer uint16 `json:"prefer"`
	// Tier, the lowest best: what the ladder gains most from. A large ladder goes
	// to a GPU (0), then to the CPU of a worker without GPU (1), then to a GPU that
	// is kept (2), then to a CPU that decodes for GPUs (3). A small one (SmallPx)
	// goes to the CPU of a worker without GPU (0), then to a GPU (1), and on alike.
	// A GPU is kept for what only GPUs can do when the ladder, which a CPU could do
	// as well, would make it fuller than KeepAbove.
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
	return Score{Stay: hi == q.stay, Prefer: q.ruled(h, r.kind).prefer, Tier: q.tier(h, r, share), Spare: q.spare(r), Share: share}
}

func (q *query) spare(r *row) int {
	if !q.s.Policy.Pack {
		return 0
	}
	return bits.OnesCount8(uint8(r.codecs &^ q.codecs))
}

// tier is that of a device which the ladder would make full by share.
func (q *query) tier(h *host, r *row, share float64) int {
	switch {
	case r.kind == onGPU && q.anywhere && share > KeepAbove:
		return 2
	case r.kind == onGPU && q.small:
		return 1
	case r.kind == onGPU:
		return 0
	case h.gpus:
		return 3
	case q.small:
		return 0
	}
	return 1
}

// class is all of a score but how full the device is; the highest is the best.
func (s Score) class() uint32 { return class(s.Stay, s.Prefer, s.Tier, s.Spare) }

func class(stay bool, prefer uint16, tier, spare int) uint32 {
	c := uint32(prefer)<<8 | uint32(3-tier)<<4 | uint32(15-spare)
	if stay {
		c |= 1 << 24
	}
	return c
}

// better compares two scores: negative when a is the better one, 0 when only the
// names can tell.
func better(a, b Score, pack bool) int {
	return cmp.Or(cmp.Compare(b.class(), a.class()), fuller(a.Share, b.Share, pack))
}

// fuller compares how full two devices would be: negative when the policy likes a.
func fuller(a, b float64, pack bool) int {
	if pack {
		return cmp.Compare(b, a)
	}
	return cmp.Compare(a, b)
}

// found is a device that fits.
type found struct {
	rowRef
	score Score
}

func (q *query) byName(a, b rowRef) int {
	wa, wb := &q.s.Workers[a.host].Report, &q.s.Workers[b.host].Report
	if c := strings.Compare(wa.Worker, wb.Worker); c != 0 || a.device < 0 || b.device < 0 {
		return c
	}
	return strings.Compare(wa.Devices[a.device].ID, wb.Devices[b.device].ID)
}

// best is the best device that fits: by class, by how full it would be, by name.
// A device of a class below what was found is not looked at.
func (q *query) best() (found, bool) {
	at, bestClass, bestShare := rowRef{-1, -1}, uint32(0), 0.0
	pack := q.s.Policy.Pack
	for hi := range q.v.hosts {
		h := &q.v.hosts[hi]
		if h.reason != Fits {
			continue
		}
		for di := range h.rows {
			r := &h.rows[di]
			stay, prefer, spare := hi == q.stay, q.ruled(h, r.kind).prefer, q.spare(r)
			if class(stay, prefer, q.tier(h, r, 0), spare) < bestClass {
				continue
			}
			reason, share := q.judge(hi, di)
			if reason != Fits {
				continue
			}
			c := class(stay, prefer, q.tier(h, r, share), spare)
			if c < bestClass {
				continue
			}
			ref := rowRef{hi, di}
			if c > bestClass || cmp.Or(fuller(share, bestShare, pack), q.byName(ref, at)) < 0 {
				at, bestClass, bestShare = ref, c, share
			}
		}
	}
	if at.host < 0 {
		return found{}, false
	}
	return found{at, q.score(at.host, at.device, bestShare)}, true
}
