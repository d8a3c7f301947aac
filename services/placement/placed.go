package placement

import (
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// Placed is a placement as Restore, Preempt and Rebalance look at it.
type Placed struct {
	// Request is what would be asked for the stream now: its whole profile, its
	// rules and priority. Own, Stay and Avoid of it are not used.
	Request  Request
	Worker   string
	Device   string
	Reserved []stream.Reservation
	Degraded bool          // rungs were dropped for want of room
	Age      time.Duration // since it was committed, or its worker last moved it
}

func (p Placed) own() Own {
	return Own{Worker: p.Worker, Reserved: p.Reserved, Young: p.Age < stream.RampHold}
}

// locate finds the device that it is on.
func (s *Snapshot) locate(p Placed) (rowRef, bool) {
	host := s.compiled().find(p.Worker)
	if host < 0 {
		return rowRef{}, false
	}
	device := s.deviceIndex(host, p.Device)
	return rowRef{host, device}, device >= 0
}
