package placement

import "fmt"

// Reason is why a device does not take a stream. Their order is the filter's:
// the further a device gets, the nearer it is to taking the stream. Their
// strings are part of the API and do not change.
type Reason uint8

// The reasons.
const (
	Fits            Reason = iota // it takes the stream
	NoDevice                      // the worker has no device
	Lost                          // the controller found the worker lost
	Silent                        // no heartbeat for MaxHeartbeatAge
	NotReady                      // GPAC can't run there
	Draining                      // takes nothing new
	Clock                         // its clock is off, or was not compared yet
	Avoided                       // the request avoids it
	Rule                          // a required rule does not hold
	Unusable                      // it can't encode
	Codec                         // it can't encode a codec of the profile
	Kept                          // kept for the stream that waits first
	Unmeasured                    // its capacity is not known
	SessionTooWide                // one rendition is more than one engine can do
	NoHostCPU                     // the host's CPU has no room for decoding and scaling
	NoSessions                    // the system's encoder sessions are taken
	NoMemory                      // the card's memory is taken
	NoPx                          // its px/s are taken
	FailoverReserve               // only streams that lost their worker may use what is left
	reasons
)

var reasonNames = [reasons]string{"fits", "no_device", "lost", "silent", "not_ready", "draining", "clock", "avoided", "rule", "unusable",
	"codec", "kept", "unmeasured", "session_too_wide", "host_cpu", "sessions", "memory", "px", "failover_reserve"}

// String is the reason's code.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// MarshalText writes the code.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a code.
func (r *Reason) UnmarshalText(text []byte) error {
	for i, name := range reasonNames {
		if name == string(text) {
			*r = Reason(i)
			return nil
		}
	}
	return fmt.Errorf("reason %q is not known", text)
}
