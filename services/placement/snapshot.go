package placement

import (
	"maps"
	"slices"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Bounds on what a worker must be to take a placement.
const (
	// MaxClockErrorMillis is how far a worker's clock may be from Redis TIME.
	MaxClockErrorMillis = 200
	// MaxHeartbeatAge is the age of the heartbeat from which a worker, which
	// sends two a second, is not trusted with anything new.
	MaxHeartbeatAge = 3 * time.Second
)

// Worker is one worker as the controller sees it.
type Worker struct {
	Report       capacity.Report
	Lost         bool // found lost by the controller
	HeartbeatAge time.Duration
	// Ledger is what streams hold of its resources, by resource.
	Ledger map[string]Load
}

// Policy is how an operator wants streams to be placed. The zero Policy spreads
// and keeps nothing back.
type Policy struct {
	// Pack fills the fullest device that has room, which keeps whole devices free
	// for large ladders; otherwise streams are spread, each to the emptiest.
	Pack bool `json:"pack"`
	// Reserve is the share of every resource's limit that only streams that lost
	// their worker may use, 0 to 0.5.
	Reserve float64 `json:"reserve"`
	// Rebalance bounds Rebalance.
	Rebalance RebalancePolicy `json:"-"`
}

// MaxReserve bounds Policy.Reserve.
const MaxReserve = 0.5

// DefaultPolicy spreads streams, so that a device that fails takes few along,
// keeps a tenth for those that do lose theirs, and moves nothing that runs.
func DefaultPolicy() Policy {
	return Policy{Reserve: 0.1, Rebalance: RebalancePolicy{Margin: DefaultMargin, MinStay: DefaultMinStay}}
}

// For is the policy for a fleet of so many workers that can take streams. While
// there are fewer than two, a reserve helps nobody: what loses its worker has no
// other to go to. Nothing is kept back then.
func (p Policy) For(workers int) Policy {
	if workers < 2 {
		p.Reserve = 0
	}
	return p
}

// Snapshot is what decisions are made from. No decision changes it. It may be
// kept from turn to turn: after the first decision it is changed through Put,
// Remove, Apply and Return alone, each of which costs as much as one worker. It
// is not safe for use by several goroutines at once.
type Snapshot struct {
	Workers []Worker // their ids differ
	Policy  Policy

	view *view // made by the first decision
}

// Put adds a worker, or replaces what is known of it. Apply and Return write to
// its Ledger.
func (s *Snapshot) Put(w Worker) {
	v := s.compiled()
	clear(v.refused)
	if i, ok := v.byName[w.Report.Worker]; ok {
		s.Workers[i] = w
		v.set(i, &s.Workers[i], s.Policy)
		return
	}
	s.Workers = append(s.Workers, w)
	v.add(&s.Workers[len(s.Workers)-1], s.Policy)
}

// Remove forgets a worker.
func (s *Snapshot) Remove(worker string) {
	v := s.compiled()
	i, ok := v.byName[worker]
	if !ok {
		return
	}
	clear(v.refused)
	last := len(s.Workers) - 1
	s.Workers[i], v.hosts[i] = s.Workers[last], v.hosts[last]
	v.byName[s.Workers[i].Report.Worker] = i
	delete(v.byName, worker)
	s.Workers[last] = Worker{}
	s.Workers, v.hosts = s.Workers[:last], v.hosts[:last]
}

// Apply counts a decision as committed: its reservations are held and young.
func (s *Snapshot) Apply(d Decision) {
	s.change(d.Worker, func(ledger map[string]Load) {
		for _, r := range d.Reserved {
			ledger[r.Resource] = ledger[r.Resource].plus(r.Amount)
		}
	})
}

// Return takes a placement's reservations out of the ledger. What it is measured
// to use stays until the worker reports again.
func (s *Snapshot) Return(o Own) {
	clear(s.compiled().refused)
	s.change(o.Worker, func(ledger map[string]Load) {
		for _, r := range o.Reserved {
			if l, ok := ledger[r.Resource]; ok {
				ledger[r.Resource], _ = l.Less(r.Amount, o.Young, nil)
			}
		}
	})
}

func (s *Snapshot) change(worker string, edit func(map[string]Load)) {
	v := s.compiled()
	i, ok := v.byName[worker]
	if !ok {
		return
	}
	w := &s.Workers[i]
	if w.Ledger == nil {
		w.Ledger = map[string]Load{}
	}
	edit(w.Ledger)
	v.set(i, w, s.Policy)
}

// Clone is a copy whose ledgers may be changed without changing those of s.
func (s *Snapshot) Clone() *Snapshot {
	c := &Snapshot{Workers: slices.Clone(s.Workers), Policy: s.Policy}
	for i := range c.Workers {
		c.Workers[i].Ledger = maps.Clone(c.Workers[i].Ledger)
	}
	return c
}

// Own is what a commit would give back: a stream's former placement that has not
// ended. It does not count against the stream itself.
type Own struct {
	Worker   string
	Reserved []stream.Reservation
	// Young is set while it is younger than stream.RampHold.
	Young bool
}
