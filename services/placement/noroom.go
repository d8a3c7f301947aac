package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// maxTelling is how many devices a refusal names with their numbers.
const maxTelling = 8

// NoRoomError says why no device took a stream. It wraps stream.ErrNoRoom. Its
// text is made when it is asked for.
type NoRoomError struct {
	Stream string
	// Telling are the devices that came nearest to taking it, at most 8, the
	// nearest first; and Counts how many were refused for each reason, a worker
	// that is refused as a whole counting once.
	Telling []Verdict
	Counts  [reasons]int

	degrade bool
	s       *Snapshot
	r       Request
}

// Verdicts says of every device why it did not take the stream, by worker and
// device. It judges anew, by the snapshot as it is now.
func (e *NoRoomError) Verdicts() []Verdict {
	q, err := e.s.query(e.r)
	if err != nil {
		return nil
	}
	list := make([]Verdict, 0, len(q.v.hosts))
	q.each(func(ref rowRef, reason Reason, _ float64) { list = append(list, q.verdict(ref, reason)) })
	slices.SortFunc(list, func(a, b Verdict) int {
		return cmp.Or(strings.Compare(a.Worker, b.Worker), strings.Compare(a.Device, b.Device))
	})
	return list
}

// Error names the nearest devices with their numbers, and counts the rest.
func (e *NoRoomError) Error() string {
	total := 0
	for _, n := range e.Counts {
		total += n
	}
	if total == 0 {
		return "no capacity: no worker has reported"
	}
	parts := make([]string, 0, maxTelling+1)
	for _, v := range e.Telling {
		parts = append(parts, v.Place()+": "+v.Text())
	}
	if rest := total - len(e.Telling); rest > 0 {
		counts := e.Counts
		for _, v := range e.Telling {
			counts[v.Reason]--
		}
		var groups []string
		for r, n := range counts {
			if n > 0 {
				groups = append(groups, fmt.Sprintf("%d %s", n, Reason(r)))
			}
		}
		parts = append(parts, fmt.Sprintf("and %d more (%s)", rest, strings.Join(groups, ", ")))
	}
	text := "no capacity: " + strings.Join(parts, "; ")
	if e.degrade {
		text += "; nor is there room with fewer rungs"
	}
	return text
}

// Unwrap returns stream.ErrNoRoom.
func (e *NoRoomError) Unwrap() error { return stream.ErrNoRoom }

// each calls f for every device, and once for a worker that is refused as a
// whole (with device -1).
func (q *query) each(f func(ref rowRef, reason Reason, share float64)) {
	for hi := range q.v.hosts {
		h := &q.v.hosts[hi]
		if h.reason != Fits {
			f(rowRef{hi, -1}, h.reason, 0)
			continue
		}
		for di := range h.rows {
			reason, share := q.judge(hi, di)
			f(rowRef{hi, di}, reason, share)
		}
	}
}

// near is a refused device on the way to be named.
type near struct {
	rowRef
	reason Reason
	short  float64 // of the resource that is short: how far above its limit, as a share
}

// refusal collects what a refusal names.
func (q *query) refusal() *NoRoomError {
	e := &NoRoomError{Stream: q.r.Stream, s: q.s, r: q.r, degrade: q.r.Degrade && len(q.r.Profile.Video) > 1}
	top := make([]near, 0, maxTelling+1)
	q.each(func(ref rowRef, reason Reason, _ float64) {
		e.Counts[reason]++
		n := near{rowRef: ref, reason: reason}
		if len(top) == maxTelling && reason < top[maxTelling-1].reason {
			return
		}
		if reason > SessionTooWide {
			n.short = q.shortage(ref)
		}
		i, _ := slices.BinarySearchFunc(top, n, q.nearer)
		if i < maxTelling {
			top = slices.Insert(top, i, n)[:min(len(top)+1, maxTelling)]
		}
	})
	for _, n := range top {
		e.Telling = append(e.Telling, q.verdict(n.rowRef, n.reason))
	}
	return e
}

func (q *query) nearer(a, b near) int {
	return cmp.Or(cmp.Compare(b.reason, a.reason), cmp.Compare(a.short, b.short), q.byName(a.rowRef, b.rowRef))
}

// shortage is how far the fullest resource would be above what it may hold.
func (q *query) shortage(ref rowRef) float64 {
	var needs [maxNeeds]need
	var most float64
	for _, n := range needs[:q.needs(ref.host, ref.device, &needs)] {
		bound := q.bound(n.room)
		most = max(most, float64(n.room.held+n.amount-bound)/float64(max(1, bound)))
	}
	return most
}
