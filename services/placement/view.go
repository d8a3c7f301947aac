package placement

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// view is a snapshot's workers in a form that a decision walks fast: numbers
// side by side, no pointer and no map for each device. hosts[i] is Workers[i].
type view struct {
	hosts  []host
	byName map[string]int
	// labels are the different sets of labels that the workers have had: rules
	// are judged once for each set and not for each worker.
	labels   []map[string]string
	byLabels map[string]int
	// refused remembers refusals. What is placed makes no room, so it is emptied
	// only when a worker is put, removed, or given something back.
	refused map[refusalKey]*NoRoomError
}

// host is a worker.
type host struct {
	reason   Reason // Fits, or why nothing may be placed on the whole worker
	labels   int    // in view.labels
	gpus     bool   // a GPU of it can be used: its CPU decodes for that
	cpu      room
	sessions room
	rows     []row // its devices, in the report's order
}

// row is a device.
type row struct {
	reason     Reason // Fits, Unusable or Unmeasured
	kind       kind
	codecs     codecs
	limited    bool  // its encoder sessions count against the system's limit
	sessionMax int64 // px/s
	px, memory room
}

// room is a resource: what it takes and what is taken.
type room struct {
	limit int64 // Unbounded when nothing bounds it
	open  int64 // limit less the reserve for failover
	held  int64
}

// account is a room with what its numbers come from.
type account struct {
	room
	load Load
	used *int64
}

// Unbounded stands for a limit that is not known and so bounds nothing. Redis
// counts in doubles, which are exact up to here.
const Unbounded int64 = 1<<53 - 1

// kind numbers the kinds of devices.
type kind uint8

const (
	onCPU kind = iota
	onGPU
	kinds
)

func kindOf(k capacity.Kind) kind {
	if k == capacity.GPU {
		return onGPU
	}
	return onCPU
}

func (k kind) String() string {
	if k == onGPU {
		return string(capacity.GPU)
	}
	return string(capacity.CPU)
}

// codecs is a set of stream.VideoCodecs. An unknown codec is in no device's set.
type codecs uint8

const (
	codecH264 codecs = 1 << iota
	codecHEVC
	codecAV1
	codecOther
)

func codecOf(name string) codecs {
	switch name {
	case "h264":
		return codecH264
	case "hevc":
		return codecHEVC
	case "av1":
		return codecAV1
	}
	return codecOther
}

func (s *Snapshot) compiled() *view {
	if s.view != nil {
		return s.view
	}
	v := &view{hosts: make([]host, 0, len(s.Workers)), byName: make(map[string]int, len(s.Workers)), byLabels: map[string]int{}, refused: map[refusalKey]*NoRoomError{}}
	for i := range s.Workers {
		v.add(&s.Workers[i], s.Policy)
	}
	s.view = v
	return v
}

func (v *view) add(w *Worker, p Policy) {
	v.byName[w.Report.Worker] = len(v.hosts)
	v.hosts = append(v.hosts, host{labels: -1})
	v.set(len(v.hosts)-1, w, p)
}

// set computes what follows from a worker.
func (v *view) set(i int, w *Worker, p Policy) {
	h := &v.hosts[i]
	h.reason = workerReason(w)
	v.intern(h, w.Report.Labels)
	h.cpu = accountOf(w, capacity.ResourceCPU, p).room
	h.sessions = accountOf(w, capacity.ResourceSessions, p).room
	if len(h.rows) != len(w.Report.Devices) {
		h.rows = make([]row, len(w.Report.Devices))
	}
	h.gpus = false
	for j := range w.Report.Devices {
		d := &w.Report.Devices[j]
		r := row{kind: kindOf(d.Kind), limited: limitedSessions(w.Report, *d), sessionMax: Unbounded, px: accountOf(w, d.ID, p).room}
		for _, c := range d.Codecs {
			r.codecs |= codecOf(c) &^ codecOther
		}
		if d.SessionMax != nil {
			r.sessionMax = *d.SessionMax
		}
		if r.kind == onGPU {
			r.memory = accountOf(w, capacity.MemoryResource(d.ID), p).room
		} else if len(d.Codecs) == 0 {
			r.codecs = codecH264
		}
		switch {
		case !d.Usable:
			r.reason = Unusable
		case d.Capacity == nil || *d.Capacity <= 0:
			r.reason = Unmeasured
		}
		h.gpus = h.gpus || (r.kind == onGPU && r.reason == Fits)
		h.rows[j] = r
	}
}

// intern gives a host its set of labels. Sets are only ever added; when many are
// no longer in use, the list starts again.
func (v *view) intern(h *host, labels map[string]string) {
	if h.labels >= 0 && maps.Equal(v.labels[h.labels], labels) {
		return
	}
	if len(v.labels) > 2*len(v.hosts)+64 {
		old := v.labels
		v.labels, v.byLabels = nil, map[string]int{}
		for i := range v.hosts {
			if other := &v.hosts[i]; other != h && other.labels >= 0 {
				other.labels = v.label(old[other.labels])
			}
		}
	}
	h.labels = v.label(maps.Clone(labels))
}

func (v *view) label(labels map[string]string) int {
	var key strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&key, "%q=%q ", k, labels[k])
	}
	i, ok := v.byLabels[key.String()]
	if !ok {
		i = len(v.labels)
		v.byLabels[key.String()] = i
		v.labels = append(v.labels, labels)
	}
	return i
}

// accountOf reads a resource. A limit that is not known bounds nothing; that a
// device's own capacity is not known is its row's reason.
func accountOf(w *Worker, resource string, p Policy) account {
	a := account{room: room{limit: Unbounded, open: Unbounded}, load: w.Ledger[resource]}
	if l, ok := w.Report.Limit(resource); ok {
		reserve := p.Reserve
		if !(reserve > 0) {
			reserve = 0
		}
		a.limit, a.used = l.Limit, l.Used
		a.open = l.Limit - int64(math.Ceil(float64(l.Limit)*min(reserve, MaxReserve)))
	}
	a.held = a.load.Held(a.used)
	return a
}

// without is the account when a placement's reservation is given back.
func (a account) without(given int64, young bool) account {
	a.load, a.used = a.load.Less(given, young, a.used)
	a.held = a.load.Held(a.used)
	return a
}

// workerReason says why nothing may be placed on w.
func workerReason(w *Worker) Reason {
	rep := &w.Report
	switch {
	case w.Lost:
		return Lost
	case w.HeartbeatAge > MaxHeartbeatAge:
		return Silent
	case !rep.Ready:
		return NotReady
	case rep.Drain:
		return Draining
	case rep.ClockErrorMillis == nil || !(math.Abs(*rep.ClockErrorMillis) <= MaxClockErrorMillis):
		return Clock
	case len(rep.Devices) == 0:
		return NoDevice
	}
	return Fits
}

// neededCodecs are those of a profile's video.
func neededCodecs(p stream.Profile) codecs {
	var c codecs
	for _, v := range p.Video {
		c |= codecOf(v.Codec)
	}
	return c
}
