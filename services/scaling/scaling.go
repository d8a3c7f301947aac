// Package scaling decides how many instances of a group should run, by how busy
// they are. It is pure: no I/O, and no clock but what is passed in.
//
//	busy (mean utilization over the target) for OutAfter ──▶ ceil(total / target), at most twice as many
//	idle (under half of it, and one less would do)
//	                                        for InAfter  ──▶ one less
//	anything unknown, a deployment, a change of the count ──▶ it stays, and the time starts again
//
// Between the target and half of it nothing happens. A step out leads to a mean
// above half of the target, a step in to one below it, so that a load that does not
// change never makes the count go back and forth (TestNoFlapping).
package scaling

import (
	"fmt"
	"math"
	"time"
)

// Policy says when an instance is busy, and for how long it must be so.
type Policy struct {
	// Target is the mean utilization that is aimed for; 1 is all that was reserved.
	Target float64
	// OutAfter is how long the mean must have been above Target.
	OutAfter time.Duration
	// InAfter is how long it must have been below half of Target.
	InAfter time.Duration
	// Cooldown is how long the count stays as it is after each change, whoever made
	// it.
	Cooldown time.Duration
}

// Default returns the policy that holds unless told otherwise.
func Default() Policy {
	return Policy{Target: 0.6, OutAfter: 30 * time.Second, InAfter: 5 * time.Minute, Cooldown: time.Minute}
}

// spare is what must be left to Target after a step in, as a share of it: what a
// load that is nearly constant needs so as not to cross Target again.
const spare = 0.1

// most bounds a step out: at most so many times the count.
const most = 2

// Sample is what was seen of a group at one moment.
type Sample struct {
	At time.Time
	// Count is how many should run now; Min and Max bound it.
	Count, Min, Max int
	// Running is the utilization of each instance that runs, of what it reserved:
	// from 0, and above 1 where it may use more.
	Running []float64
	// Unknown says why the utilization of some is not known; "" when all is.
	Unknown string
	// Deploying says that another version is being rolled out.
	Deploying bool
}

// total is what all instances do, in instances that are fully used.
func (s Sample) total() (sum float64) {
	for _, u := range s.Running {
		sum += u
	}
	return sum
}

// Mean is the mean utilization; false when none runs.
func (s Sample) Mean() (float64, bool) {
	if len(s.Running) == 0 {
		return 0, false
	}
	return s.total() / float64(len(s.Running)), true
}

// State is what must be remembered of a group between two samples. The zero value
// has seen nothing.
type State struct {
	seen       bool
	count      int
	changed    time.Time // when the count was first seen to be another
	busy, idle time.Time // since when; zero when it is not
}

// Decision is how many should run, and why.
type Decision struct {
	Count int
	Why   string
}

// Decide says how many instances should run from now on, and what to remember. It
// answers the same again until the next sample has another Count.
func (p Policy) Decide(s Sample, st State) (Decision, State) {
	switch {
	case !st.seen:
		st = State{seen: true, count: s.Count}
	case st.count != s.Count:
		st = State{seen: true, count: s.Count, changed: s.At}
	}
	stay := func(format string, args ...any) (Decision, State) {
		return Decision{Count: s.Count, Why: fmt.Sprintf(format, args...)}, st
	}
	mean, ok := s.Mean()
	switch {
	case s.Deploying:
		st.busy, st.idle = time.Time{}, time.Time{}
		return stay("a deployment runs")
	case s.Count < s.Min || s.Count > s.Max:
		n := min(max(s.Count, s.Min), s.Max)
		return Decision{Count: n, Why: fmt.Sprintf("%d is not within %d and %d", s.Count, s.Min, s.Max)}, st
	case s.Unknown != "":
		st.busy, st.idle = time.Time{}, time.Time{}
		return stay("not all is known: %s", s.Unknown)
	case !ok:
		st.busy, st.idle = time.Time{}, time.Time{}
		return stay("none runs")
	}
	st.busy = since(st.busy, s.At, mean > p.Target)
	st.idle = since(st.idle, s.At, p.oneLessWouldDo(s, mean))
	switch {
	case !st.changed.IsZero() && s.At.Sub(st.changed) < p.Cooldown:
		return stay("the count has changed %s ago", round(s.At.Sub(st.changed)))
	case !st.busy.IsZero() && s.At.Sub(st.busy) >= p.OutAfter:
		return p.out(s, mean, st)
	case !st.idle.IsZero() && s.At.Sub(st.idle) >= p.InAfter && s.Count > s.Min:
		return Decision{Count: s.Count - 1, Why: p.why(s, mean, "below half of", st.idle)}, st
	}
	return stay("a mean of %s", percent(mean))
}

// out asks for as many as bring the mean to the target. More are asked for only
// when all that were asked for before run.
func (p Policy) out(s Sample, mean float64, st State) (Decision, State) {
	n := int(math.Ceil(s.total() / p.Target))
	n = min(n, most*s.Count, s.Max)
	switch {
	case s.Count >= s.Max:
		return Decision{Count: s.Count, Why: p.why(s, mean, "above", st.busy) + fmt.Sprintf(", and %d is the most that may run", s.Max)}, st
	case len(s.Running) < s.Count:
		return Decision{Count: s.Count, Why: p.why(s, mean, "above", st.busy) + fmt.Sprintf(", and only %d of %d run yet", len(s.Running), s.Count)}, st
	case n <= s.Count: // more run than should
		return Decision{Count: s.Count, Why: p.why(s, mean, "above", st.busy)}, st
	}
	return Decision{Count: n, Why: p.why(s, mean, "above", st.busy)}, st
}

// oneLessWouldDo says whether the load is so low that one instance less carries it.
func (p Policy) oneLessWouldDo(s Sample, mean float64) bool {
	left := min(len(s.Running), s.Count-1)
	return left > 0 && mean < p.Target/2 && s.total()/float64(left) <= (1-spare)*p.Target
}

func (p Policy) why(s Sample, mean float64, where string, since time.Time) string {
	return fmt.Sprintf("a mean of %s over %d running, %s the target of %s for %s", percent(mean), len(s.Running), where, percent(p.Target), round(s.At.Sub(since)))
}

// since keeps from when on something holds.
func since(t, now time.Time, holds bool) time.Time {
	switch {
	case !holds:
		return time.Time{}
	case t.IsZero():
		return now
	}
	return t
}

func percent(u float64) string { return fmt.Sprintf("%.0f %%", u*100) }

func round(d time.Duration) time.Duration { return d.Round(time.Second) }
