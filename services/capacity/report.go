// Package capacity holds the report that a worker sends about its devices. A
// pointer that is nil means unknown; it is never a silent 0.
package capacity

import "time"

// Kind tells devices apart by what encodes.
type Kind string

// The kinds of devices.
const (
	CPU Kind = "cpu"
	GPU Kind = "gpu"
)

// Report is a worker's heartbeat, sent twice a second.
type Report struct {
	Worker  string `json:"worker"` // worker id, also its origin id
	Boot    string `json:"boot"`   // changes at each start of the worker
	Host    string `json:"host"`
	Version string `json:"version"`
	// Origin is the address that the worker registers in Consul, host:port.
	Origin string `json:"origin"`
	// Queue is the asynq queue that it serves.
	Queue string `json:"queue"`
	// Time is the worker's clock; Redis TIME minus it is the clock error.
	Time time.Time `json:"time"`
	// ClockErrorMillis is the worker's measured offset from Redis TIME.
	ClockErrorMillis *float64 `json:"clock_error_ms"`
	// Ready is false when GPAC can't run here; Reason says why.
	Ready   bool     `json:"ready"`
	Reason  string   `json:"reason,omitempty"`
	Drain   bool     `json:"drain"` // takes nothing new
	GPAC    string   `json:"gpac"`  // its version
	Devices []Device `json:"devices"`
}

// Device is one thing that encodes.
type Device struct {
	ID   string `json:"id"` // "cpu", or a GPU's UUID in lower case
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Usable is false when it can't encode; Reason says why.
	Usable bool   `json:"usable"`
	Reason string `json:"reason,omitempty"`
	// Capacity is the budget in encoded pixels per second, headroom taken off;
	// nil until it has been measured.
	Capacity *int64 `json:"capacity_px_s"`
	// CapacitySource says where Capacity comes from: calibrated, cached,
	// table or configured.
	CapacitySource string `json:"capacity_source,omitempty"`
	// Used is the measured share of the capacity in px/s, nil when unknown.
	Used *int64 `json:"used_px_s"`
	// Cores and Load are the CPU's: logical cores, and the share of all cores'
	// time that is busy, 0 to 1.
	Cores *int     `json:"cores,omitempty"`
	Load  *float64 `json:"load,omitempty"`
}
