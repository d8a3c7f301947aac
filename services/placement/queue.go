package placement

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// Defaults of the queue.
const (
	// DefaultQueueLimit is how many streams may wait.
	DefaultQueueLimit = 1000
	// DefaultPatience is how long the first of the queue waits before those behind
	// it stop taking what it could use.
	DefaultPatience = 30 * time.Second
)

// Waiting is a stream that waits for capacity.
type Waiting struct {
	Request Request
	Since   time.Time
}

// Order sorts what waits: the higher priority first, then who waits longest,
// then by stream. The list that it was given stays as it is.
func Order(waiting []Waiting) []Waiting {
	list := slices.Clone(waiting)
	slices.SortFunc(list, func(a, b Waiting) int {
		return cmp.Or(cmp.Compare(b.Request.Priority, a.Request.Priority), a.Since.Compare(b.Since), strings.Compare(a.Request.Stream, b.Request.Stream))
	})
	return list
}

// Head is the stream that waits first and has lost its patience, and the device
// that is kept for it: what runs there ends, and nothing new comes.
type Head struct {
	Stream         string
	Worker, Device string
	// Reserved is what it would take there. Of the host's CPU and encoder sessions,
	// which the other devices of the worker share, so much is kept too.
	Reserved []stream.Reservation
}

// Line orders what waits and lets nobody starve. Of those that have waited
// longer than patience, the first that could use some device if it were empty
// becomes the Head of all that stand after it: they leave one device alone until
// it is placed, the one where the least has to be freed. So a large ladder is not
// overtaken for ever by small ones that fit into each gap, and they go on
// everywhere else. As the kept device only empties, what has to be freed only
// shrinks from turn to turn, whichever device that is by then. Those before it, by
// their priority, are not held back, and neither is a stream that lost its worker.
func Line(s *Snapshot, waiting []Waiting, now time.Time, patience time.Duration) []Waiting {
	list := Order(waiting)
	for i := range list {
		if now.Sub(list[i].Since) <= patience {
			continue
		}
		head := keep(s, list[i].Request)
		if head == nil {
			continue
		}
		for j := i + 1; j < len(list); j++ {
			list[j].Request.Behind = head
		}
		break
	}
	return list
}

// keep chooses the device that is kept for r: of those that would take it when
// they were empty, the one that lacks the least of what it needs, then by name.
// It returns nil when there is none.
func keep(s *Snapshot, r Request) *Head {
	q, err := s.query(r)
	if err != nil {
		return nil
	}
	if r.Degrade {
		q.price(smallest(r.Profile))
	}
	at, least := rowRef{-1, -1}, 0.0
	for hi := range q.v.hosts {
		for di := range q.v.hosts[hi].rows {
			if !q.couldUse(hi, di) {
				continue
			}
			ref := rowRef{hi, di}
			if lacks := q.lacks(ref); at.host < 0 || cmp.Or(cmp.Compare(lacks, least), q.byName(ref, at)) < 0 {
				at, least = ref, lacks
			}
		}
	}
	if at.host < 0 {
		return nil
	}
	w := &s.Workers[at.host].Report
	d := w.Devices[at.device]
	return &Head{Stream: r.Stream, Worker: w.Worker, Device: d.ID, Reserved: q.cost[kindOf(d.Kind)].Reserve(*w, d)}
}

// lacks is how much has to be freed on a device, as a share of what is needed;
// of its resources the scarcest counts. 0 is nothing.
func (q *query) lacks(ref rowRef) float64 {
	var needs [maxNeeds]need
	var most float64
	for _, n := range needs[:q.needs(ref.host, ref.device, &needs)] {
		most = max(most, float64(n.room.held+n.amount-q.bound(n.room))/float64(max(1, n.amount)))
	}
	return most
}
