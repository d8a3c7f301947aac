package device

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

// FailureKind says what a run's failure teaches of its device.
type FailureKind string

// The kinds of failures.
const (
	// OpenFailed: the encoder could not be opened. The device is not used for a
	// minute, 2, 4 … 30 when it happens again, and then has to prove itself.
	OpenFailed FailureKind = "open_failed"
	// OutOfMemory: the card's memory was full.
	OutOfMemory FailureKind = "out_of_memory"
	// SessionCap: the driver allows no more encoder sessions.
	SessionCap FailureKind = "session_cap"
	// TooSlow: a run stayed below real time.
	TooSlow FailureKind = "too_slow"
	// Throttled: the same while the card's clocks were lowered.
	Throttled FailureKind = "throttled"
)

// Failure is what a run's failure teaches.
type Failure struct {
	Kind   FailureKind
	Detail string    // GPAC's words, or what was measured
	At     time.Time // zero: now
	// InUse is what all runs on the device used of its capacity when it failed, in
	// px/s, the failed one included: for TooSlow and Throttled, which teach
	// nothing without it.
	InUse int64
	// Sessions is how many encoder sessions the system's cards held when one more
	// was refused, for SessionCap, as far as the worker knows; NVML's count, which may
	// be from before the run began, is taken when it is more.
	Sessions int
	// Memory is how much of the card's memory was in use in bytes, for
	// OutOfMemory, as far as the worker knows; NVML's figure is taken when it is
	// more.
	Memory int64
}

const (
	// learnedFor is how long a limit is kept.
	learnedFor = 10 * time.Minute
	// A device that can't open its encoder is left alone so long, and twice as long
	// each time that it happens again, until it has been well for openForgotten.
	openFirst, openMost = time.Minute, 30 * time.Minute
	openForgotten       = time.Hour
	// A device that is too slow again after that keeps its lesson twice as long, up
	// to capacityMost, until it has been well for openForgotten.
	capacityMost = 2 * time.Hour
	// learnedShare is the share of what failed that is tried next.
	learnedShare       = 0.9
	learnedMemoryShare = 0.95
)

// The limits that can be learned, as capacity.Learned names them.
const (
	limitUsable   = "usable"
	limitCapacity = "capacity"
	limitSessions = "sessions"
	limitMemory   = "memory"
)

// lessons are what failures have taught of one device. Its methods are given the
// time.
type lessons struct {
	mu      sync.Mutex
	entries map[string]capacity.Learned // by limit
	// failed is how often in a row the encoder could not be opened, and when it
	// last could not.
	failed   int
	failedAt time.Time
	// slow is how often in a row the device was too slow after such a lesson had
	// been forgotten, and when the last lesson is.
	slow   int
	slowAt time.Time
}

// learn takes in a failure; f's figures are complete. It returns what it taught.
func (l *lessons) learn(f Failure) (capacity.Learned, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := capacity.Learned{Why: fmt.Sprintf("%s: %s", strings.ReplaceAll(string(f.Kind), "_", " "), shorten(f.Detail)), Until: f.At.Add(learnedFor)}
	switch {
	case f.Kind == OpenFailed, f.Kind == SessionCap && f.Sessions <= 0:
		e.Limit = limitUsable
		if old, ok := l.entries[limitUsable]; ok && f.At.Before(old.Until) {
			return old, false // runs that fail together are one failure
		}
		if f.At.Sub(l.failedAt) > openForgotten {
			l.failed = 0
		}
		e.Until = f.At.Add(min(openFirst<<min(l.failed, 16), openMost))
		l.failed, l.failedAt = l.failed+1, e.Until
	case f.Kind == SessionCap:
		e.Limit, e.Value = limitSessions, int64(f.Sessions)
	case f.Kind == OutOfMemory && f.Memory > 0:
		e.Limit, e.Value = limitMemory, int64(float64(f.Memory)*learnedMemoryShare)
	case (f.Kind == TooSlow || f.Kind == Throttled) && f.InUse > 0:
		e.Limit, e.Value = limitCapacity, int64(float64(f.InUse)*learnedShare)
		e.Until = f.At.Add(l.slowFor(f.At))
		l.slowAt = e.Until
	default:
		return e, false
	}
	if old, ok := l.entries[e.Limit]; ok && f.At.Before(old.Until) {
		e.Value = min(e.Value, old.Value)
	}
	if l.entries == nil {
		l.entries = map[string]capacity.Learned{}
	}
	l.entries[e.Limit] = e
	return e, true
}

// slowFor is how long a capacity that is learned now is kept.
func (l *lessons) slowFor(now time.Time) time.Duration {
	switch since := now.Sub(l.slowAt); {
	case l.slowAt.IsZero() || since > openForgotten:
		l.slow = 0
	case since >= 0: // it was forgotten, and the failure is back
		l.slow++
	}
	return min(learnedFor<<min(l.slow, 16), capacityMost)
}

// at returns what holds at a time, ordered by limit.
func (l *lessons) at(now time.Time) []capacity.Learned {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []capacity.Learned
	for _, e := range l.entries {
		if now.Before(e.Until) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b capacity.Learned) int { return strings.Compare(a.Limit, b.Limit) })
	return out
}

// apply sets d's Learned and what follows from it, but the memory's limit, which
// capacity.Report.Limit takes from there.
func (l *lessons) apply(d *capacity.Device, now time.Time) {
	d.Learned = l.at(now)
	for _, e := range d.Learned {
		switch e.Limit {
		case limitUsable:
			d.Usable, d.Reason = false, e.Why
		case limitCapacity:
			if d.Capacity != nil && e.Value < *d.Capacity {
				v := e.Value
				d.Capacity, d.CapacitySource = &v, sourceLearned
			}
			if d.SessionMax != nil && e.Value < *d.SessionMax {
				v := e.Value
				d.SessionMax = &v
			}
		case limitSessions:
			if d.GPU != nil {
				limited := true
				d.GPU.SessionLimited = &limited
			}
		}
	}
}

// shorten keeps a text of GPAC's within what a report may carry for each device.
func shorten(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 160 {
		return strings.ToValidUTF8(s[:160], "") + "…"
	}
	return s
}
