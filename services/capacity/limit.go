package capacity

import "strings"

// A worker's resources. Each has a ledger of what streams hold of it, and a
// limit that their sum must not exceed.
const (
	// ResourceCPU is the host's CPU, in px/s of x264's veryfast. It is also the
	// CPU device's id. What runs on a GPU holds some of it too: it is decoded
	// and scaled by the CPU.
	ResourceCPU = "cpu"
	// ResourceSessions are the encoder sessions of the system's session-limited
	// cards together.
	ResourceSessions = "nvenc-sessions"
	// A GPU's id is the resource of its encoders, in px/s of H.264 at P3; its
	// memory, in bytes, is MemoryResource(id).
	memorySuffix = "/memory"
)

// MemoryResource names the memory of a GPU.
func MemoryResource(device string) string { return device + memorySuffix }

// Unit is that of a resource's amounts: px/s, bytes or sessions.
func Unit(resource string) string {
	switch {
	case resource == ResourceSessions:
		return "sessions"
	case strings.HasSuffix(resource, memorySuffix):
		return "bytes"
	}
	return "px/s"
}

// MemoryHeadroom is the share of a card's memory that runs may hold; what is left
// is the driver's and fragmentation's.
const MemoryHeadroom = 0.9

// Limit bounds a resource.
type Limit struct {
	// Limit is the most that streams may hold together.
	Limit int64 `json:"limit"`
	// Used is what is measured to be in use now (of memory and sessions, by
	// whatever process); nil when unknown.
	Used *int64 `json:"used"`
}

// Device returns a device by its id.
func (r Report) Device(id string) (Device, bool) {
	for _, d := range r.Devices {
		if d.ID == id {
			return d, true
		}
	}
	return Device{}, false
}

// Limit returns the limit of one of the worker's resources. It is false when the
// resource is not there, or not known: then nothing bounds it, and a caller
// decides what that means.
func (r Report) Limit(resource string) (Limit, bool) {
	if resource == ResourceSessions {
		if r.SessionLimit == nil {
			return Limit{}, false
		}
		l := Limit{Limit: int64(*r.SessionLimit)}
		if r.SessionsUsed != nil {
			used := int64(*r.SessionsUsed)
			l.Used = &used
		}
		return l, true
	}
	id, memory := strings.CutSuffix(resource, memorySuffix)
	d, ok := r.Device(id)
	switch {
	case !ok:
		return Limit{}, false
	case memory:
		if d.GPU == nil || d.GPU.MemoryTotal == nil {
			return Limit{}, false
		}
		l := Limit{Limit: int64(float64(*d.GPU.MemoryTotal) * MemoryHeadroom), Used: d.GPU.MemoryUsed}
		for _, e := range d.Learned {
			if e.Limit == "memory" {
				l.Limit = min(l.Limit, e.Value)
			}
		}
		return l, true
	case d.Capacity == nil:
		return Limit{}, false
	}
	l := Limit{Limit: *d.Capacity, Used: d.Used}
	if d.Other != nil {
		l.Limit = max(0, l.Limit-*d.Other)
	}
	return l, true
}
