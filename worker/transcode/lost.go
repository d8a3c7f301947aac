package transcode

import (
	"errors"
	"maps"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// forgottenAfter is how long, beyond its grace, a placement that Redis does not know
// waits for its publisher. While that one sends it runs on, as it does while Redis is
// away.
const forgottenAfter = time.Minute

// without decides on a loop that is not wanted, given what Redis has of its stream.
func (m *Manager) without(l *loop, p stream.Placement, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.missing = false
	gone := errors.Is(err, stream.ErrNotFound) || err == nil && p.Epoch < l.epoch
	if err == nil && !gone {
		l.unknown = time.Time{}
	}
	switch {
	case l.over():
	case err == nil && p.Epoch == l.epoch && p.State == stream.PlacementEnded:
		l.stop("the placement has ended", true)
	case gone:
		m.lost(l)
	case err != nil: // unknown: go on
	case p.Epoch > l.epoch:
		m.fence(l, p.Epoch)
	}
}

// lost decides on a loop whose placement Redis does not know, or of which it knows a
// lower epoch alone. A placement is deleted only after its end. Or Redis has lost its
// state, which must not end what viewers watch: neither while GPAC runs, nor between
// two of its runs. The lock is held.
func (m *Manager) lost(l *loop) {
	if l.unknown.IsZero() {
		l.unknown = time.Now()
		l.log.Warn("Redis does not know this placement; going on while its publisher sends")
	}
	if l.pid.Load() != 0 {
		l.heard()
		return
	}
	l.mu.Lock()
	since, patience := l.sent, l.placement.Grace.Duration()+forgottenAfter
	l.mu.Unlock()
	if time.Since(l.unknown) > patience && time.Since(since) > patience {
		l.closes.Store(true)
		l.stop("Redis does not know the placement, and nobody sends", true)
	}
}

// ran is a run, and when its loop ended.
type ran struct {
	id stream.RunID
	at time.Time
}

// remember notes the newest run of a loop that has ended. The lock is held.
func (m *Manager) remember(l *loop) {
	now := time.Now()
	if len(m.ran)%1000 == 999 {
		maps.DeleteFunc(m.ran, func(_ string, r ran) bool { return now.Sub(r.at) > stream.EpochMemory })
	}
	l.mu.Lock()
	id := stream.RunID{Epoch: l.epoch, Run: l.runs}
	l.mu.Unlock()
	if before := m.ran[l.id].id; id.Epoch >= before.Epoch {
		m.ran[l.id] = ran{id: id, at: now}
	}
}
