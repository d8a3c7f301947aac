package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Bounds on what a worker must be to take a placement.
const (
	// MaxClockErrorMillis is how far a worker's clock may be from Redis TIME.
	MaxClockErrorMillis = 200
	// MaxHeartbeatAge is the age of the heartbeat from which a worker, which
	// sends two a second, is not trusted with anything new.
	MaxHeartbeatAge = 3 * time.Second
)

// Worker is one worker as the controller sees it.
type Worker struct {
	Report       capacity.Report
	Lost         bool // found lost by the controller
	HeartbeatAge time.Duration
	// Ledger is what is reserved: device → stream → px/s.
	Ledger map[string]map[string]int64
}

// Snapshot is what a decision is made from. Decide does not change it.
type Snapshot struct {
	Workers []Worker
}

// Request is what needs a device.
type Request struct {
	Stream string
	Price  int64 // px/s
	// Prefer names a worker that wins when it has room; "" for none.
	Prefer string
	// Avoid lists workers that are not asked.
	Avoid []string
}

// Decision is a proposal to commit.
type Decision struct {
	Worker string
	Boot   string
	Device string
	// Limit is the device's budget in px/s that the commit must not exceed.
	Limit int64
	// Verdicts says of every device why it was, or was not, fit.
	Verdicts []Verdict
}

// Verdict is what was found of one device, with the numbers behind it. A
// pointer that is nil is unknown. Device is "" when the whole worker is refused.
type Verdict struct {
	Worker   string
	Device   string
	OK       bool
	Reason   string
	Price    int64
	Capacity *int64
	Reserved int64
	Used     *int64
}

// NoRoomError says why each device was refused. It wraps stream.ErrNoRoom.
type NoRoomError struct {
	Stream   string
	Verdicts []Verdict
}

// Error names every device and its numbers.
func (e *NoRoomError) Error() string {
	if len(e.Verdicts) == 0 {
		return "no capacity: no worker has reported"
	}
	parts := make([]string, len(e.Verdicts))
	for i, v := range e.Verdicts {
		at := v.Worker
		if v.Device != "" {
			at += "/" + v.Device
		}
		parts[i] = at + ": " + v.Reason
	}
	return "no capacity: " + strings.Join(parts, "; ")
}

// Unwrap returns stream.ErrNoRoom.
func (e *NoRoomError) Unwrap() error { return stream.ErrNoRoom }

// candidate is a device that passed the filter.
type candidate struct {
	worker    *Worker
	device    capacity.Device
	preferred bool
	share     float64 // of the budget that is taken afterwards
}

// Decide filters the devices and ranks those that fit: the preferred worker
// first, then the device with the largest share of its budget left, then by
// name. What a device has left is its capacity less the greater of what is
// reserved on it and what it measures as used; Used must not hold what is not
// Dionysia's. With no device left it returns a *NoRoomError.
func Decide(s Snapshot, r Request) (Decision, error) {
	var fit []candidate
	var verdicts []Verdict
	for i := range s.Workers {
		w := &s.Workers[i]
		if reason := refuseWorker(w, r); reason != "" {
			verdicts = append(verdicts, Verdict{Worker: w.Report.Worker, Reason: reason, Price: r.Price})
			continue
		}
		for _, d := range w.Report.Devices {
			v := judge(w, d, r.Price)
			verdicts = append(verdicts, v)
			if v.OK {
				taken := max(v.Reserved, value(v.Used)) + r.Price
				fit = append(fit, candidate{worker: w, device: d, preferred: w.Report.Worker == r.Prefer,
					share: float64(taken) / float64(*d.Capacity)})
			}
		}
	}
	slices.SortFunc(verdicts, func(a, b Verdict) int {
		return cmp.Or(strings.Compare(a.Worker, b.Worker), strings.Compare(a.Device, b.Device))
	})
	if len(fit) == 0 {
		return Decision{}, &NoRoomError{Stream: r.Stream, Verdicts: verdicts}
	}
	best := slices.MinFunc(fit, func(a, b candidate) int {
		return cmp.Or(-compareBool(a.preferred, b.preferred), cmp.Compare(a.share, b.share),
			strings.Compare(a.worker.Report.Worker, b.worker.Report.Worker), strings.Compare(a.device.ID, b.device.ID))
	})
	return Decision{Worker: best.worker.Report.Worker, Boot: best.worker.Report.Boot, Device: best.device.ID,
		Limit: *best.device.Capacity, Verdicts: verdicts}, nil
}

// refuseWorker says why nothing may be placed on w, "" when something may.
func refuseWorker(w *Worker, r Request) string {
	rep := w.Report
	switch {
	case w.Lost:
		return fmt.Sprintf("lost: no heartbeat for %.1f s and no answer", w.HeartbeatAge.Seconds())
	case w.HeartbeatAge > MaxHeartbeatAge:
		return fmt.Sprintf("no heartbeat for %.1f s, at most %.0f s are allowed", w.HeartbeatAge.Seconds(), MaxHeartbeatAge.Seconds())
	case !rep.Ready:
		return "not ready: " + cmp.Or(rep.Reason, "no reason given")
	case rep.Drain:
		return "draining"
	case slices.Contains(r.Avoid, rep.Worker):
		return "avoided for this stream"
	case rep.ClockErrorMillis == nil:
		return "its clock has not been compared yet"
	case !(math.Abs(*rep.ClockErrorMillis) <= MaxClockErrorMillis):
		return fmt.Sprintf("its clock is %.0f ms off, at most %d ms are allowed", *rep.ClockErrorMillis, MaxClockErrorMillis)
	case len(rep.Devices) == 0:
		return "has no device"
	}
	return ""
}

// judge says whether one device has room.
func judge(w *Worker, d capacity.Device, price int64) Verdict {
	v := Verdict{Worker: w.Report.Worker, Device: d.ID, Price: price, Capacity: d.Capacity, Used: d.Used}
	for _, px := range w.Ledger[d.ID] {
		v.Reserved += px
	}
	switch {
	case d.Kind != capacity.CPU:
		v.Reason = fmt.Sprintf("devices of kind %s are not used yet", d.Kind)
	case !d.Usable:
		v.Reason = "not usable: " + cmp.Or(d.Reason, "no reason given")
	case d.Capacity == nil || *d.Capacity <= 0:
		v.Reason = "its capacity has not been measured"
	case max(v.Reserved, value(v.Used)) > *d.Capacity-price:
		used := "unknown"
		if v.Used != nil {
			used = fmt.Sprint(*v.Used)
		}
		v.Reason = fmt.Sprintf("needs %d px/s; of %d px/s, %d are reserved and %s used", price, *d.Capacity, v.Reserved, used)
	default:
		v.OK, v.Reason = true, "fits"
	}
	return v
}

// value takes an unknown measurement for nothing measured: the reservation
// stands for it.
func value(p *int64) int64 {
	if p == nil {
		return 0
	}
	return *p
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
