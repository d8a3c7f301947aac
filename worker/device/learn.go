package device

import "time"

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
	// was refused, for SessionCap; 0 takes NVML's count.
	Sessions int
	// Memory is how much of the card's memory was in use in bytes, for
	// OutOfMemory; 0 takes NVML's figure.
	Memory int64
}
