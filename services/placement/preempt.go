package placement

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// MaxVictims is how many placements may go for one.
const MaxVictims = 8

// maxNodes bounds the search for victims on one device; so many are reached only
// where amounts of several resources vary widely.
const maxNodes = 4096

// Preempt looks for placements of strictly lower priority on one device that
// would have to go for r to fit with its whole profile: the fewest, at most
// MaxVictims; of as many, those whose highest priority is the lowest; then the
// lowest sum of priorities, then the youngest, then by worker and device. When r
// fits as it is, there are no victims.
func Preempt(s *Snapshot, placed []Placed, r Request) (victims []Placed, d Decision, ok bool) {
	r.Degrade = false
	q, err := s.query(r)
	if err != nil {
		return nil, Decision{}, false
	}
	if best, ok := q.best(); ok {
		return nil, q.decision(best), true
	}
	targets := q.targets(placed)
	for k := 1; k <= MaxVictims; k++ {
		var best *sacrifice
		for i := range targets {
			highest := r.Priority
			if best != nil {
				highest = best.highest
			}
			if v := targets[i].search(k, highest); v != nil && (best == nil || v.before(best)) {
				best = v
			}
		}
		if best == nil {
			continue
		}
		q.victimise(best.on.ref.host, best.victims)
		_, share := q.fits(best.on.ref.host, best.on.ref.device)
		for _, p := range best.victims {
			victims = append(victims, *p)
		}
		return victims, q.decision(found{best.on.ref, q.score(best.on.ref.host, best.on.ref.device, share)}), true
	}
	return nil, Decision{}, false
}

// target is a device where something may go for the stream.
type target struct {
	q    *query
	ref  rowRef
	list []*Placed // candidates: the lowest priority first, then the youngest
	// short is by how much each resource is above what it may hold, once by what
	// is reserved and once by what is measured; gains[i] is what list[i] would
	// give back of each. They steer the search; query.fits has the last word.
	short []float64
	gains [][]float64
}

// targets groups what may go by device, in the order of the names.
func (q *query) targets(placed []Placed) []target {
	byRow := map[rowRef][]*Placed{}
	for i := range placed {
		p := &placed[i]
		if p.Request.Priority >= q.r.Priority || p.Request.Stream == q.r.Stream {
			continue
		}
		if ref, ok := q.s.locate(*p); ok {
			byRow[ref] = append(byRow[ref], p)
		}
	}
	var list []target
	for ref, candidates := range byRow {
		if q.eligible(ref.host, ref.device) != Fits {
			continue
		}
		slices.SortFunc(candidates, func(a, b *Placed) int {
			return cmp.Or(cmp.Compare(a.Request.Priority, b.Request.Priority), cmp.Compare(a.Age, b.Age), strings.Compare(a.Request.Stream, b.Request.Stream))
		})
		t := target{q: q, ref: ref, list: candidates}
		t.measure()
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b target) int { return q.byName(a.ref, b.ref) })
	return list
}

// measure fills in short and gains.
func (t *target) measure() {
	var needs [maxNeeds]need
	n := t.q.needs(t.ref.host, t.ref.device, &needs)
	t.gains = make([][]float64, len(t.list))
	for _, n := range needs[:n] {
		resource := resourceOf(n.reason, t.q.s.Workers[t.ref.host].Report.Devices[t.ref.device].ID)
		a := t.q.account(t.ref.host, resource)
		bound := t.q.bound(&a.room)
		t.short = append(t.short, float64(a.load.Reserved+n.amount-bound))
		shown := 0.0
		if a.used != nil {
			shown = a.load.shown(*a.used)
			t.short = append(t.short, float64(*a.used+a.load.Young+n.amount-bound))
		}
		for i, p := range t.list {
			o := p.own()
			gain := float64(amount(o.Reserved, resource))
			t.gains[i] = append(t.gains[i], gain)
			if a.used == nil {
				continue
			}
			if !o.Young {
				gain *= shown
			}
			t.gains[i] = append(t.gains[i], gain)
		}
	}
}

// sacrifice is a choice of victims on one device.
type sacrifice struct {
	on       *target
	victims  []*Placed
	highest  int // priority
	sum      int // of the priorities
	together time.Duration
}

func (s *sacrifice) before(o *sacrifice) bool {
	return cmp.Or(cmp.Compare(s.highest, o.highest), cmp.Compare(s.sum, o.sum), cmp.Compare(s.together, o.together)) < 0
}

// search finds k victims whose highest priority is as low as can be, and no
// higher than highest.
func (t *target) search(k, highest int) *sacrifice {
	if !t.reaches(len(t.list), k) {
		return nil
	}
	for end := range t.list {
		if end+1 < len(t.list) && t.list[end+1].Request.Priority == t.list[end].Request.Priority {
			continue // end is the last of its priority
		}
		if t.list[end].Request.Priority > highest {
			break
		}
		if end+1 < k || !t.reaches(end+1, k) {
			continue
		}
		f := finder{t: t, end: end + 1, most: t.most(end+1, k), nodes: maxNodes}
		if f.find(0, k, slices.Clone(t.short)) {
			s := &sacrifice{on: t, victims: f.chosen}
			for _, p := range f.chosen {
				s.highest = max(s.highest, p.Request.Priority)
				s.sum += p.Request.Priority
				s.together += p.Age
			}
			return s
		}
	}
	return nil
}

// reaches says whether k of list[:end] could give back enough of each resource,
// taken by itself.
func (t *target) reaches(end, k int) bool {
	var top [MaxVictims]float64 // descending
	for d, short := range t.short {
		n := 0
		for _, g := range t.gains[:end] {
			at := n
			for at > 0 && top[at-1] < g[d] {
				at--
			}
			if at < k {
				n = min(n+1, k)
				copy(top[at+1:n], top[at:])
				top[at] = g[d]
			}
		}
		for _, g := range top[:n] {
			short -= g
		}
		if short > rounding {
			return false
		}
	}
	return true
}

// most is, for each start i and each count j up to k, the most that j of
// list[i:end] could give back of each resource: most[i][j][resource].
func (t *target) most(end, k int) [][][]float64 {
	dims := len(t.short)
	top := make([][]float64, dims) // per resource the k largest gains so far, descending
	most := make([][][]float64, end+1)
	for i := end; i >= 0; i-- {
		if i < end {
			for d := range dims {
				at, _ := slices.BinarySearchFunc(top[d], t.gains[i][d], func(a, b float64) int { return cmp.Compare(b, a) })
				top[d] = slices.Insert(top[d], at, t.gains[i][d])
				top[d] = top[d][:min(k, len(top[d]))]
			}
		}
		most[i] = make([][]float64, k+1)
		for j := range k + 1 {
			most[i][j] = make([]float64, dims)
			for d := range dims {
				for _, g := range top[d][:min(j, len(top[d]))] {
					most[i][j][d] += g
				}
			}
		}
	}
	return most
}

// finder is a depth-first search through list[:end].
type finder struct {
	t      *target
	end    int
	most   [][][]float64
	nodes  int
	chosen []*Placed
}

// rounding forgives what whole numbers lose against the proportions.
const rounding = 2 * MaxVictims

// find adds k victims from list[i:end] to the chosen, the first in its order
// that do; short is what is still to be given back.
func (f *finder) find(i, k int, short []float64) bool {
	if f.nodes--; f.nodes < 0 {
		return false
	}
	if k == 0 {
		f.t.q.victimise(f.t.ref.host, f.chosen)
		reason, _ := f.t.q.fits(f.t.ref.host, f.t.ref.device)
		f.t.q.victimise(-1, nil)
		return reason == Fits
	}
	for ; i+k <= f.end; i++ {
		for d, s := range short {
			if s > f.most[i][k][d]+rounding {
				return false
			}
		}
		rest := slices.Clone(short)
		for d := range rest {
			rest[d] -= f.t.gains[i][d]
		}
		f.chosen = append(f.chosen, f.t.list[i])
		if f.find(i+1, k-1, rest) {
			return true
		}
		f.chosen = f.chosen[:len(f.chosen)-1]
	}
	return false
}

// victimise counts placements of one host as gone.
func (q *query) victimise(host int, victims []*Placed) {
	q.victimsOn, q.victims = host, q.victims[:0]
	for _, p := range victims {
		q.victims = append(q.victims, p.own())
	}
}
