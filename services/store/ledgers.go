package store

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Ledgers is a view of all workers' ledgers. Refresh brings it up to date at the
// cost of what has changed: it reads the feed, and everything only at first, or
// when the feed does not reach back to where it had read to. It is safe for
// concurrent use; who reads it waits for a Refresh under way.
//
// Each change in the feed says what is held then, not by how much more or less;
// reading one twice does no harm, and an older one is put right by the next.
type Ledgers struct {
	s *Store

	mu         sync.Mutex
	workers    map[string]map[string]*resourceLedger // worker → resource
	changed    map[string]struct{}                   // workers; see Changed
	aging      agingHeap
	now        time.Time // Redis' clock at the last Refresh
	position   string    // the feed's last entry that has been read; "" for nothing yet
	generation string
}

// resourceLedger is what is held of one resource, with its sums kept.
type resourceLedger struct {
	held map[string]heldEntry // by stream
	load placement.Load
}

type heldEntry struct {
	Held
	young bool
}

// NewLedgers makes an empty view; the first Refresh fills it.
func (s *Store) NewLedgers() *Ledgers {
	return &Ledgers{s: s, workers: map[string]map[string]*resourceLedger{}, changed: map[string]struct{}{}}
}

// errGap is a feed that does not hold the entry that was read last.
var errGap = errors.New("the feed has a gap")

// Refresh brings the view up to date and returns how many changes it took; when it
// had to read everything, how many reservations there are. After an error the view
// is not newer than its last success, and may be partly older; the next Refresh
// goes on.
func (l *Ledgers) Refresh(ctx context.Context) (changed int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refresh(ctx)
}

func (l *Ledgers) refresh(ctx context.Context) (changed int, err error) {
	// A load that takes so long that the feed is trimmed meanwhile is repeated.
	for range 3 {
		n := 0
		if l.position == "" {
			if n, err = l.load(ctx); err != nil {
				return changed, fmt.Errorf("reading all ledgers: %w", err)
			}
			changed += n
		}
		n, err = l.follow(ctx, "")
		changed += n
		if !errors.Is(err, errGap) {
			break
		}
		l.position = ""
	}
	if err != nil {
		return changed, fmt.Errorf("following the ledgers: %w", err)
	}
	return changed, nil
}

// Changed returns, in no order, the workers whose Load is another than at the last
// call: something was reserved, returned, or grew older than stream.RampHold; at
// first all that hold something.
func (l *Ledgers) Changed() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Collect(maps.Keys(l.changed))
	clear(l.changed)
	return list
}

// Load fills into with what is held of each of a worker's resources as of the
// last Refresh, young by Redis' clock then, and returns it; nil makes a new map. A
// resource of which nothing is held is missing.
func (l *Ledgers) Load(worker string, into map[string]placement.Load) map[string]placement.Load {
	l.mu.Lock()
	defer l.mu.Unlock()
	if into == nil {
		into = make(map[string]placement.Load, len(l.workers[worker]))
	}
	clear(into)
	for resource, g := range l.workers[worker] {
		into[resource] = g.load
	}
	return into
}

// Held returns what a stream holds at a worker, in order of the resources' names,
// and whether any of it is younger than stream.RampHold.
func (l *Ledgers) Held(worker, id string) (reserved []stream.Reservation, young bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for resource, g := range l.workers[worker] {
		if e, ok := g.held[id]; ok {
			reserved = append(reserved, stream.Reservation{Resource: resource, Amount: e.Amount})
			young = young || e.young
		}
	}
	slices.SortFunc(reserved, func(a, b stream.Reservation) int { return strings.Compare(a.Resource, b.Resource) })
	return reserved, young
}

// Generation is that of the database which the view is of; see Store.Generation.
func (l *Ledgers) Generation() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.generation
}

// Workers returns the workers that hold something, in order.
func (l *Ledgers) Workers() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.workers))
}

// set records what a stream holds of a resource, nothing for an amount of 0.
func (l *Ledgers) set(worker, resource, id string, h Held) {
	resources := l.workers[worker]
	g := resources[resource]
	if g == nil {
		if h.Amount == 0 {
			return
		}
		if resources == nil {
			resources = map[string]*resourceLedger{}
			l.workers[worker] = resources
		}
		g = &resourceLedger{held: map[string]heldEntry{}}
		resources[resource] = g
	}
	old, had := g.held[id]
	if had && old.Held == h || !had && h.Amount == 0 {
		return
	}
	l.changed[worker] = struct{}{}
	if had {
		g.count(old, -1)
	}
	if h.Amount == 0 {
		delete(g.held, id)
		if len(g.held) == 0 {
			delete(resources, resource)
		}
		if len(resources) == 0 {
			delete(l.workers, worker)
		}
		return
	}
	e := heldEntry{Held: h, young: l.now.Sub(h.At) < stream.RampHold}
	if e.young {
		heap.Push(&l.aging, aging{worker: worker, resource: resource, stream: id, at: h.At})
	}
	g.held[id] = e
	g.count(e, 1)
}

func (g *resourceLedger) count(e heldEntry, sign int) {
	n := int64(sign) * e.Amount
	g.load.Reserved += n
	g.load.Streams += sign
	if e.young {
		g.load.Young += n
	}
}

// advance moves the clock on: what has grown old is young no more.
func (l *Ledgers) advance(now time.Time) {
	if now.Before(l.now) {
		return // Redis' clock was set back: what is old stays old
	}
	l.now = now
	for len(l.aging) > 0 && now.Sub(l.aging[0].at) >= stream.RampHold {
		a := heap.Pop(&l.aging).(aging)
		g := l.workers[a.worker][a.resource]
		if g == nil {
			continue
		}
		e, ok := g.held[a.stream]
		if !ok || !e.young || !e.At.Equal(a.at) {
			continue // returned, or raised since
		}
		g.load.Young -= e.Amount
		e.young = false
		g.held[a.stream] = e
		l.changed[a.worker] = struct{}{}
	}
}

// aging is a reservation that is young; the heap has the oldest first.
type aging struct {
	worker, resource, stream string
	at                       time.Time
}

type agingHeap []aging

func (h agingHeap) Len() int           { return len(h) }
func (h agingHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h agingHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *agingHeap) Push(x any) { *h = append(*h, x.(aging)) }

// Pop implements heap.Interface.
func (h *agingHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}
