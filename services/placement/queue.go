package placement

import (
	"cmp"
	"slices"
	"strings"
	"time"
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

// Bound orders what waits and cuts it at a limit: of the lowest priority the
// youngest are refused. A limit of 0 or less bounds nothing.
func Bound(waiting []Waiting, limit int) (kept, refused []Waiting) {
	list := Order(waiting)
	if limit <= 0 || len(list) <= limit {
		return list, nil
	}
	return list[:limit:limit], list[limit:]
}

// Line orders what waits and lets nobody starve. Of those that have waited
// longer than patience, the first that could use some device if it were empty
// becomes the Behind of all that stand after it: they leave its devices alone
// until it is placed. So a large ladder is not overtaken for ever by small ones
// that fit into each gap. Those before it, by their priority, are not held back,
// and neither is a stream that lost its worker.
func Line(s *Snapshot, waiting []Waiting, now time.Time, patience time.Duration) []Waiting {
	list := Order(waiting)
	for i := range list {
		if now.Sub(list[i].Since) <= patience || !couldEver(s, list[i].Request) {
			continue
		}
		head := list[i].Request
		for j := i + 1; j < len(list); j++ {
			list[j].Request.Behind = &head
		}
		break
	}
	return list
}

// couldEver says whether some device would take r when it was empty.
func couldEver(s *Snapshot, r Request) bool {
	q, err := s.query(r)
	if err != nil {
		return false
	}
	if r.Degrade {
		q.price(smallest(r.Profile))
	}
	for hi := range q.v.hosts {
		for di := range q.v.hosts[hi].rows {
			if q.couldUse(hi, di) {
				return true
			}
		}
	}
	return false
}
