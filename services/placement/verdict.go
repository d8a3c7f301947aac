package placement

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// Verdict is what was found of one device, with the numbers behind it. A pointer
// that is nil is unknown.
type Verdict struct {
	Worker string
	Device string // "" when the whole worker is refused
	Reason Reason
	// Detail is the worker's own word on why it, or the device, can't be used; the
	// rule that does not hold; the codecs that the device has; or the stream that
	// the device is kept for.
	Detail string
	// Resource is what is short, Need how much of it the stream takes, Limit what
	// it may hold and Load and Used what it does.
	Resource string
	Need     int64
	Limit    int64
	Load     Load
	Used     *int64
	// HeartbeatAge and ClockErrorMillis are the worker's.
	HeartbeatAge     time.Duration
	ClockErrorMillis *float64
}

// Place is worker/device, or the worker alone.
func (v Verdict) Place() string {
	if v.Device == "" {
		return v.Worker
	}
	return v.Worker + "/" + v.Device
}

// Text says it in words.
func (v Verdict) Text() string {
	switch v.Reason {
	case Fits:
		return "fits"
	case NoDevice:
		return "has no device"
	case Lost:
		return fmt.Sprintf("lost: no heartbeat for %.1f s and no answer", v.HeartbeatAge.Seconds())
	case Silent:
		return fmt.Sprintf("no heartbeat for %.1f s, at most %.0f s are allowed", v.HeartbeatAge.Seconds(), MaxHeartbeatAge.Seconds())
	case NotReady:
		return "not ready: " + cmp.Or(v.Detail, "no reason given")
	case Draining:
		return "draining"
	case Clock:
		if v.ClockErrorMillis == nil {
			return "its clock has not been compared yet"
		}
		return fmt.Sprintf("its clock is %.0f ms off, at most %d ms are allowed", *v.ClockErrorMillis, MaxClockErrorMillis)
	case Avoided:
		return "avoided for this stream"
	case Rule:
		return "does not satisfy " + v.Detail
	case Unusable:
		return "not usable: " + cmp.Or(v.Detail, "no reason given")
	case Codec:
		return v.Detail
	case Kept:
		return "kept for " + v.Detail + ", which waits first"
	case Unmeasured:
		return "its capacity has not been measured"
	case SessionTooWide:
		return fmt.Sprintf("one rendition needs %d px/s; one encoder session can do %d", v.Need, v.Limit)
	}
	return v.shortage()
}

func (v Verdict) shortage() string {
	unit, where := " px/s", ""
	switch v.Reason {
	case NoMemory:
		unit, where = " bytes", " of the card's memory"
	case NoSessions:
		unit, where = " encoder sessions", " of the system"
	case NoHostCPU:
		where = " of the host's CPU to decode and scale"
	case FailoverReserve:
		unit, where = " of "+v.Resource, " outside the reserve for failover"
	}
	used := "unknown"
	if v.Used != nil {
		used = fmt.Sprint(*v.Used)
	}
	young := ""
	if v.Load.Young > 0 {
		young = fmt.Sprintf(" (%d of them lately)", v.Load.Young)
	}
	return fmt.Sprintf("needs %d%s; of %d%s%s, %d are reserved%s and %s used", v.Need, unit, v.Limit, unit, where, v.Load.Reserved, young, used)
}

// verdict collects the numbers behind a reason.
func (q *query) verdict(ref rowRef, reason Reason) Verdict {
	w := &q.s.Workers[ref.host]
	v := Verdict{Worker: w.Report.Worker, Reason: reason, HeartbeatAge: w.HeartbeatAge, ClockErrorMillis: w.Report.ClockErrorMillis}
	if ref.device < 0 {
		v.Detail = w.Report.Reason
		return v
	}
	d := &w.Report.Devices[ref.device]
	r := &q.v.hosts[ref.host].rows[ref.device]
	v.Device = d.ID
	switch reason {
	case Rule:
		v.Detail = q.brokenRule(w.Report.Labels, r.kind)
	case Unusable:
		v.Detail = d.Reason
	case Codec:
		v.Detail = q.missingCodecs(r)
	case Kept:
		v.Detail = q.r.Behind.Stream
	case SessionTooWide:
		v.Resource, v.Need, v.Limit = d.ID, q.cost[r.kind].Widest, r.sessionMax
	case NoPx, NoMemory, NoSessions, NoHostCPU, FailoverReserve:
		q.short(&v, ref)
	}
	return v
}

// short fills in the first resource that is short.
func (q *query) short(v *Verdict, ref rowRef) {
	var needs [maxNeeds]need
	for _, n := range needs[:q.needs(ref.host, ref.device, &needs)] {
		bound := n.room.limit
		if v.Reason == FailoverReserve {
			bound = n.room.open
		}
		if n.room.held+n.amount > bound {
			v.Resource, v.Need, v.Limit = resourceOf(n.reason, v.Device), n.amount, bound
			a := q.account(ref.host, v.Resource)
			v.Load, v.Used = a.load, a.used
			return
		}
	}
}

// brokenRule is the first required rule that does not hold.
func (q *query) brokenRule(labels map[string]string, k kind) string {
	for _, text := range q.r.Require {
		key, value, equal, err := text.Parse()
		if err == nil && !(rule{key, value, equal}).holds(labels, k) {
			return string(text)
		}
	}
	return ""
}

func (q *query) missingCodecs(r *row) string {
	var missing, has []string
	for _, c := range stream.VideoCodecs() {
		switch bit := codecOf(c); {
		case r.codecs&bit != 0:
			has = append(has, c)
		case q.codecs&bit != 0:
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		missing = []string{"an unknown codec"}
	}
	if len(has) == 0 {
		has = []string{"none"}
	}
	return "can't encode " + strings.Join(missing, ", ") + "; it has " + strings.Join(has, ", ")
}
