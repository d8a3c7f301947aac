// Package capacity holds the report that a worker sends about its devices, and
// what follows from it alone. A pointer that is nil means unknown; it is never a
// silent 0.
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
	// Labels are what an operator says of the worker, such as class=gpu and
	// datacenter=ams1; streams may require or prefer them.
	Labels map[string]string `json:"labels,omitempty"`
	// Origin is the address that the worker registers in Consul, host:port.
	Origin string `json:"origin"`
	// NomadNode is the id of the Nomad node that it runs on, "" without Nomad.
	NomadNode string `json:"nomad_node,omitempty"`
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
	// SessionLimit is how many encoder sessions the driver allows on all
	// session-limited (GeForce) cards of this system together; nil without such
	// cards, or when the operator lifted it.
	SessionLimit *int `json:"session_limit,omitempty"`
	// SessionsUsed are the sessions that NVML counts on those cards, of whatever
	// process.
	SessionsUsed *int `json:"sessions_used,omitempty"`
	// NVML says why there is no GPU to see, or that all is well: "ok",
	// "no library", "no driver", … with the library's own words; "" where GPUs
	// were not asked for.
	NVML string `json:"nvml,omitempty"`
	// Runs are the placements that it runs: stream → epoch.
	Runs map[string]uint64 `json:"runs,omitempty"`
}

// Device is one thing that encodes.
type Device struct {
	ID   string `json:"id"` // "cpu", or a GPU's UUID in lower case
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Usable is false when it can't encode; Reason says why.
	Usable bool   `json:"usable"`
	Reason string `json:"reason,omitempty"`
	// Codecs are those that a real encode has proven: h264, hevc, av1.
	Codecs []string `json:"codecs"`
	// Capacity is the budget in encoded pixels per second, headroom taken off,
	// and lowered to what was learned; nil until it has been measured. On a GPU
	// the unit is NVENC H.264 at preset P3, on the CPU x264 at veryfast.
	Capacity *int64 `json:"capacity_px_s"`
	// CapacitySource says where Capacity comes from: calibrated, cached,
	// table, configured or learned.
	CapacitySource string `json:"capacity_source,omitempty"`
	// SessionMax is the most that one encoder session can do in px/s: one engine's
	// share. nil when only Capacity bounds it.
	SessionMax *int64 `json:"session_max_px_s,omitempty"`
	// Used is what Dionysia's own runs are measured to use of the capacity, in
	// px/s, nil when unknown.
	Used *int64 `json:"used_px_s"`
	// Other is what other processes are measured to take of the capacity, in
	// px/s, smoothed; nil when unknown. The budget is Capacity less Other.
	Other *int64 `json:"other_px_s,omitempty"`
	// Learned lists the limits that failures have taught, until they are
	// forgotten. They are already applied to Usable, Capacity and the rest; that of
	// memory is applied by Report.Limit.
	Learned []Learned `json:"learned,omitempty"`
	// Cores and Load are the CPU's: logical cores, and the share of all cores'
	// time that is busy, 0 to 1.
	Cores *int     `json:"cores,omitempty"`
	Load  *float64 `json:"load,omitempty"`
	// GPU holds what NVML says; nil for a CPU.
	GPU *GPUState `json:"gpu,omitempty"`
}

// Learned is a limit that a failure has taught.
type Learned struct {
	// Limit is what it bounds: capacity (px/s), sessions, memory (bytes), or
	// usable for a device that is not to be used at all.
	Limit string `json:"limit"`
	// Value in the unit of Limit; 0 for usable.
	Value int64 `json:"value"`
	// Why quotes the failure.
	Why string `json:"why"`
	// Until is when it is forgotten.
	Until time.Time `json:"until"`
}

// GPUState is what NVML says of a card. Each pointer, map and slice is nil when
// the query failed or is not supported: unknown.
type GPUState struct {
	Index        *int    `json:"index"` // NVML's, as it is now; the UUID is the name
	Architecture *string `json:"architecture"`
	Driver       *string `json:"driver"`
	PCIBus       *string `json:"pci_bus"`
	MIG          *bool   `json:"mig"` // MIG mode is on
	// SessionLimited is set for cards whose driver caps the encoder sessions of
	// the system (GeForce).
	SessionLimited *bool `json:"session_limited"`
	// Memory in bytes. MemoryUsed is of all processes.
	MemoryTotal *int64 `json:"memory_total_bytes"`
	MemoryUsed  *int64 `json:"memory_used_bytes"`
	// Utilisation of NVENC and NVDEC in percent, 0 to 100.
	EncoderUtilization *int `json:"encoder_utilization_pct"`
	DecoderUtilization *int `json:"decoder_utilization_pct"`
	// EncoderCapacity is the free share of the encoders in percent, by codec: h264,
	// hevc, av1. A codec without an encoder, or unknown, is missing.
	EncoderCapacity map[string]int `json:"encoder_capacity_pct,omitempty"`
	// Encoders is the number of NVENC engines, from the table of architectures and
	// names; nil when the card is not in it.
	Encoders *int `json:"encoders"`
	// SessionCount, AverageFPS and AverageLatency (µs) are of the encoder sessions.
	SessionCount   *int `json:"session_count"`
	AverageFPS     *int `json:"average_fps"`
	AverageLatency *int `json:"average_latency_us"`
	// Sessions are the encoder sessions; nil when unknown, empty when there are none.
	Sessions []EncoderSession `json:"sessions"`
	// Power in watts, Temperature in °C.
	Power       *float64 `json:"power_w"`
	Temperature *int     `json:"temperature_c"`
	// ClockReasons are why the clocks are lowered, such as sw_power_cap and
	// hw_thermal_slowdown; nil when unknown, empty when they are not.
	ClockReasons []string `json:"clock_reasons"`
}

// EncoderSession is one encoder session on a card.
type EncoderSession struct {
	PID    int    `json:"pid"`
	Codec  string `json:"codec"` // h264, hevc, av1 or unknown
	Width  int    `json:"width"`
	Height int    `json:"height"`
	FPS    int    `json:"fps"` // average
}
