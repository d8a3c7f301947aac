package placement

import "github.com/dionysia-dev/dionysia/services/capacity"

// need is one resource that a device would have to give, and its room.
type need struct {
	reason Reason // when it is short
	room   *room
	amount int64
}

// maxNeeds are px, the card's memory, the system's sessions and the host's CPU.
const maxNeeds = 4

// judge filters one device and, when it fits, says how full the fullest of its
// resources would be, 0 to 1. It is what a decision does once for each device:
// nothing is allocated and nothing formatted.
func (q *query) judge(hi, di int) (Reason, float64) {
	if reason := q.eligible(hi, di); reason != Fits {
		return reason, 0
	}
	return q.fits(hi, di)
}

// eligible judges all but the room.
func (q *query) eligible(hi, di int) Reason {
	reason := q.standing(hi, di)
	if reason == Fits && q.behind == (rowRef{hi, di}) {
		return Kept
	}
	return reason
}

// standing judges what does not depend on who else waits, or on what is taken.
func (q *query) standing(hi, di int) Reason {
	h := &q.v.hosts[hi]
	if h.reason != Fits {
		return h.reason
	}
	r := &h.rows[di]
	for _, a := range q.avoid {
		if a.host == hi && (a.device < 0 || a.device == di) {
			return Avoided
		}
	}
	switch {
	case !q.ruled(h, r.kind).require:
		return Rule
	case r.reason == Unusable:
		return Unusable
	case q.codecs&^r.codecs != 0:
		return Codec
	case r.reason != Fits:
		return r.reason
	case q.cost[r.kind].Widest > r.sessionMax:
		return SessionTooWide
	}
	return Fits
}

// couldUse says whether the device would do when it was empty.
func (q *query) couldUse(hi, di int) bool {
	if q.standing(hi, di) != Fits {
		return false
	}
	var needs [maxNeeds]need
	for _, n := range needs[:q.needs(hi, di, &needs)] {
		if n.amount > q.bound(n.room) {
			return false
		}
	}
	return true
}

// bound is what a resource may hold when the stream has been added.
func (q *query) bound(r *room) int64 {
	if q.r.Failover {
		return r.limit
	}
	return r.open
}

// needs lists what a device has to give, and returns how much is listed.
func (q *query) needs(hi, di int, out *[maxNeeds]need) int {
	h := &q.v.hosts[hi]
	r := &h.rows[di]
	c := &q.cost[r.kind]
	out[0] = need{NoPx, &r.px, c.Px}
	n := 1
	if r.kind == onGPU {
		out[1] = need{NoMemory, &r.memory, c.Memory}
		n = 2
		if r.limited && c.Sessions > 0 {
			out[n] = need{NoSessions, &h.sessions, int64(c.Sessions)}
			n++
		}
		if c.HostPx > 0 {
			out[n] = need{NoHostCPU, &h.cpu, c.HostPx}
			n++
		}
	}
	if hi == q.own || hi == q.victimsOn {
		device := q.s.Workers[hi].Report.Devices[di].ID
		for i := range out[:n] {
			q.scratch[i] = q.account(hi, resourceOf(out[i].reason, device)).room
			out[i].room = &q.scratch[i]
		}
	}
	return n
}

// account is a resource of a worker, without what the stream itself and victims
// would give back.
func (q *query) account(hi int, resource string) account {
	a := accountOf(&q.s.Workers[hi], resource, q.s.Policy)
	if hi == q.own {
		a = a.without(amount(q.r.Own.Reserved, resource), q.r.Own.Young)
	}
	if hi == q.victimsOn {
		for _, o := range q.victims {
			a = a.without(amount(o.Reserved, resource), o.Young)
		}
	}
	return a
}

// resourceOf names the resource of a device that a shortage is of.
func resourceOf(r Reason, device string) string {
	switch r {
	case NoMemory:
		return capacity.MemoryResource(device)
	case NoSessions:
		return capacity.ResourceSessions
	case NoHostCPU:
		return capacity.ResourceCPU
	}
	return device
}

// fits judges the room.
func (q *query) fits(hi, di int) (Reason, float64) {
	var needs [maxNeeds]need
	n := q.needs(hi, di, &needs)
	reserved := false
	var fullest float64
	for i := range needs[:n] {
		r := needs[i].room
		after := r.held + needs[i].amount
		if after > r.limit {
			return needs[i].reason, 0
		}
		reserved = reserved || after > q.bound(r)
		fullest = max(fullest, float64(after)/float64(r.limit))
	}
	if reserved {
		return FailoverReserve, 0
	}
	if hi == q.behind.host && q.crowds(hi, di, needs[:n]) {
		return Kept, 0
	}
	if q.ceiling > 0 && fullest > q.ceiling {
		return NoPx, 0
	}
	return Fits, fullest
}

// crowds says whether the stream would take, beside the device that is kept for
// the Head, what that needs of the same host.
func (q *query) crowds(hi, di int, needs []need) bool {
	device := q.s.Workers[hi].Report.Devices[di].ID
	for _, n := range needs {
		kept := amount(q.r.Behind.Reserved, resourceOf(n.reason, device))
		if kept > 0 && n.room.held+n.amount+kept > q.bound(n.room) {
			return true
		}
	}
	return false
}
