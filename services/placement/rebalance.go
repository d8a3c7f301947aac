package placement

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Defaults of RebalancePolicy.
const (
	DefaultMargin  = 0.25
	DefaultMinStay = 5 * time.Minute
)

// examined is how many placements are looked at for each move that is allowed.
const examined = 32

// RebalancePolicy bounds Rebalance. The zero value moves nothing.
type RebalancePolicy struct {
	// Moves is how many placements one call may move; 0 is off.
	Moves int
	// Margin is by how much a device must be better, as a share of its budget, 0
	// to 1: a device of a better tier must have that much left afterwards, one of
	// the same must be that much emptier.
	Margin float64
	// MinStay is how long a placement stays where it is at least.
	MinStay time.Duration
}

// Move is a placement that is better off elsewhere.
type Move struct {
	Stream string
	From   Own
	Device string // that it leaves
	To     Decision
	// Gain is what made it better: "prefer", "tier" or "share".
	Gain string
}

// Rebalance proposes at most p.Moves moves of placements to a device that is
// clearly better: one that the stream prefers, one of a better tier (such as a
// GPU that has returned), or, unless packing, one that is emptier by the margin.
// What was placed or moved lately stays, and so does what is degraded, which is
// Restore's. It looks first at what is on CPUs, then at what is on the fullest
// devices, and at 32 placements for each move at most. s stays as it is.
func Rebalance(s *Snapshot, placed []Placed, p RebalancePolicy) []Move {
	if p.Moves <= 0 || !(p.Margin < 1) {
		return nil
	}
	p.Margin = max(0, p.Margin)
	c := s.Clone()
	var moves []Move
	for _, pl := range c.restless(placed, p) {
		if m, ok := c.improve(pl, p); ok {
			c.Return(m.From)
			c.Apply(m.To)
			if moves = append(moves, m); len(moves) == p.Moves {
				break
			}
		}
	}
	return moves
}

// restless are the placements worth looking at, in order.
func (s *Snapshot) restless(placed []Placed, p RebalancePolicy) []Placed {
	type seat struct {
		Placed
		kind kind
		full float64
	}
	v := s.compiled()
	var seats []seat
	for _, pl := range placed {
		ref, ok := s.locate(pl)
		if !ok || pl.Degraded || pl.Age < p.MinStay || v.hosts[ref.host].reason != Fits {
			continue
		}
		r := &v.hosts[ref.host].rows[ref.device]
		seats = append(seats, seat{pl, r.kind, float64(r.px.held) / float64(max(1, r.px.limit))})
	}
	slices.SortFunc(seats, func(a, b seat) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(b.full, a.full), cmp.Compare(b.Age, a.Age),
			strings.Compare(a.Request.Stream, b.Request.Stream))
	})
	list := make([]Placed, 0, min(len(seats), examined*p.Moves))
	for _, st := range seats[:cap(list)] {
		list = append(list, st.Placed)
	}
	return list
}

// improve looks for a better device for one placement.
func (s *Snapshot) improve(pl Placed, p RebalancePolicy) (Move, bool) {
	r := pl.Request
	r.Own, r.Stay, r.Degrade, r.Failover, r.Avoid = pl.own(), "", false, false, []string{pl.Worker + "/" + pl.Device}
	q, err := s.query(r)
	if err != nil {
		return Move{}, false
	}
	ref, _ := s.locate(pl)
	here := q.score(ref.host, ref.device, 0) // nothing leaves a GPU only because it is kept
	here.Share = q.fullness(ref)
	q.ceiling = 1 - p.Margin
	best, ok := q.best()
	if !ok {
		return Move{}, false
	}
	gain := ""
	switch there := best.score; {
	case there.Prefer != here.Prefer:
		if there.Prefer > here.Prefer {
			gain = "prefer"
		}
	case there.Tier != here.Tier:
		if there.Tier < here.Tier {
			gain = "tier"
		}
	case !s.Policy.Pack && p.Margin > 0 && here.Share-there.Share >= p.Margin:
		gain = "share"
	}
	if gain == "" {
		return Move{}, false
	}
	return Move{Stream: r.Stream, From: pl.own(), Device: pl.Device, To: q.decision(best), Gain: gain}, true
}

// fullness is how full the fullest resource of a device is with the stream on it.
func (q *query) fullness(ref rowRef) float64 {
	var needs [maxNeeds]need
	var most float64
	for _, n := range needs[:q.needs(ref.host, ref.device, &needs)] {
		most = max(most, float64(n.room.held+n.amount)/float64(max(1, n.room.limit)))
	}
	return most
}
