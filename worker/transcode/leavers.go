package transcode

import (
	"context"
	"slices"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// leaveTimeout is how long a run waits for those that leave its GPU, and
// leavePoll how often it looks.
const (
	leaveTimeout = 3 * time.Second
	leavePoll    = 20 * time.Millisecond
)

// awaitLeavers waits, not for long, for runs that are about to end on the run's
// GPU: its ledger counts them no more, but the card and its driver do. The CPU
// turns nobody away.
func (l *loop) awaitLeavers() {
	ctx, cancel := context.WithTimeout(l.ctx, leaveTimeout)
	defer cancel()
	for l.m.leaving(l) && sleep(ctx, leavePoll) {
	}
}

// leaving tells whether a run that is about to end still encodes where another one
// is to start: on its GPU, or among the sessions that cards share.
func (m *Manager) leaving(l *loop) bool {
	id, reserved := l.place()
	if gpuOf(id) == "" {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for o := range m.live {
		if o == l || o.pid.Load() == 0 || !o.missing && !o.over() && !o.ending() {
			continue
		}
		if on, held := o.place(); on == id || sessions(reserved) > 0 && sessions(held) > 0 {
			return true
		}
	}
	return false
}

// sessions is how many encoder sessions of the system's cap a list holds.
func sessions(list []stream.Reservation) int64 {
	if i := slices.IndexFunc(list, func(r stream.Reservation) bool { return r.Resource == capacity.ResourceSessions }); i >= 0 {
		return list[i].Amount
	}
	return 0
}
