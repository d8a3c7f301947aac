package transcode

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/device"
)

// Devices is what the manager needs of the host's devices.
type Devices interface {
	// Fill sets a report's devices and what else is known of them now. It waits
	// for nothing.
	Fill(r *capacity.Report)
	// Learn takes in what a run's failure teaches of its device.
	Learn(device string, f device.Failure)
}

// shunFor is how long a run does not go back to a device that failed it, whatever
// the device says by then.
const shunFor = time.Minute

// unmovedAgain is how often events say that no device takes a run that tries.
const unmovedAgain = time.Minute

// gpuOf is the GPU that a device stands for, "" for the CPU.
func gpuOf(id string) string {
	if id == device.CPUID {
		return ""
	}
	return id
}

// devices is what the worker's devices are now.
func (m *Manager) devices() capacity.Report {
	r := capacity.Report{Worker: m.cfg.Worker}
	m.dev.Fill(&r)
	return r
}

// find returns a device of a report; one that the report does not have is not
// usable.
func find(r capacity.Report, id string) capacity.Device {
	if d, ok := r.Device(id); ok {
		return d
	}
	d := capacity.Device{ID: id, Kind: capacity.GPU, Reason: "the worker has no such device"}
	if gpuOf(id) == "" {
		d.Kind = capacity.CPU
	}
	return d
}

// held sums up what all runs but one's hold of the worker's resources.
func (m *Manager) held(but *loop) map[string]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := map[string]int64{}
	for _, l := range m.loops {
		if l == but || l.over() {
			continue
		}
		_, reserved := l.place()
		for _, r := range reserved {
			sum[r.Resource] += r.Amount
		}
	}
	return sum
}

// place is where the run encodes, and what it holds there.
func (l *loop) place() (device string, reserved []stream.Reservation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.device, l.reserved
}

// settleOn notes where the run encodes, and whether Redis knows.
func (l *loop) settleOn(device string, reserved []stream.Reservation, recorded bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.device, l.reserved = device, reserved
	if recorded {
		l.placement.Device, l.placement.Reserved = device, reserved
	}
}

// book sees to it that the run's device can take it, and holds what it really
// costs; it goes to another device when that one can't. When there is none it
// waits a moment and returns false.
func (l *loop) book(src found, back *backoff) bool {
	r := l.m.devices()
	id, _ := l.place()
	d := find(r, id)
	if d.Kind == capacity.GPU && !d.Usable {
		f := fault{detail: "not usable: " + d.Reason}
		if l.moveOn(src, f) {
			return true
		}
		l.set(stream.RunBackoff, fmt.Sprintf("%s: %s", named(d), f))
		l.settle()
		l.wait(back.next(end{reason: endStart}))
		return false
	}
	code := refusedDevice
	var err error
	if missing := (wish{ladder: src.ladder}).missing(d); missing != "" {
		err = fmt.Errorf("%s can't encode %s", named(d), missing)
	} else {
		err = l.reserve(r, d, placement.Price(d.Kind, src.ladder, src.media))
	}
	if err == nil || l.moveOn(src, fault{detail: err.Error()}) {
		return true
	}
	if errors.Is(err, stream.ErrNoRoom) {
		code = refusedNoRoom
	}
	l.refuse(code, err.Error())
	return false
}

// reserve changes what the placement holds to a cost. Without Redis the
// reservation stays as it is: it is the profile's most.
func (l *loop) reserve(r capacity.Report, d capacity.Device, c placement.Cost) error {
	p := l.current()
	if p.Device != d.ID { // Redis does not know of the move yet; record tells it
		l.settleOn(d.ID, c.Reserve(r, d), false)
		return nil
	}
	reserved := costing(p.Reserved, c)
	more := lacking(p.Reserved, c.Reserve(r, d))
	ctx, cancel := context.WithTimeout(l.ctx, storeTimeout)
	defer cancel()
	var err error
	if len(more) == 0 {
		err = l.m.store.Reprice(ctx, l.id, l.epoch, reserved)
	} else { // such as what was returned while the source was sound alone
		limits := limitsOf(r, reserved)
		for i := range limits {
			limits[i].Used = nil // it may hold the run's own use
		}
		limits = append(limits, limitsOf(r, more)...)
		reserved = append(reserved, more...)
		err = l.m.store.MoveDevice(ctx, l.id, l.epoch, d.ID, reserved, limits)
	}
	switch {
	case errors.Is(err, stream.ErrNoRoom):
		return fmt.Errorf("the source costs %d px/s: %w", c.Px, err)
	case err != nil:
		l.log.Warn("can't change the reservation", "reserved", reserved, "error", err)
	}
	l.settleOn(d.ID, reserved, err == nil)
	return nil
}

// teach tells a device what a failure teaches of it. pace is what part of real
// time its runs were made at, 1 where that is not what failed.
func (l *loop) teach(id string, f fault, pace float64) {
	if f.kind == "" {
		return
	}
	d, inUse := find(l.m.devices(), id), int64(float64(l.m.held(nil)[id])*pace)
	if d.Used != nil {
		inUse = max(inUse, *d.Used) // what it was seen to do, it can do
	}
	if d.Other != nil {
		inUse += *d.Other // the budget is the capacity less that
	}
	x := device.Failure{Kind: f.kind, Detail: f.detail, InUse: inUse}
	switch f.kind {
	case device.SessionCap:
		x.Sessions = l.opened(d)
	case device.OutOfMemory:
		x.Memory = l.m.held(nil)[capacity.MemoryResource(id)]
	}
	l.m.dev.Learn(id, x)
	l.log.Warn("a device failed", "device", id, "kind", string(f.kind), "detail", f.detail)
}

// opened is how many encoder sessions the worker knows of when one more is refused
// on d: those that its other runs hold, and what NVML has seen of this run's.
func (l *loop) opened(d capacity.Device) int {
	n := int(l.m.heldSessions(l))
	if d.GPU != nil {
		for _, s := range d.GPU.Sessions {
			if s.PID != 0 && int64(s.PID) == l.pid.Load() {
				n++
			}
		}
	}
	return n
}

// heldSessions is how many sessions of the system's cap the runs but one's hold
// that have a GPAC.
func (m *Manager) heldSessions(but *loop) (sum int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for l := range m.live {
		if l != but && l.pid.Load() != 0 {
			_, reserved := l.place()
			sum += sessions(reserved)
		}
	}
	return sum
}

// elsewhere lists the devices that the run could go on, and says of the others
// why not.
func (l *loop) elsewhere(src found) (fit []option, refused []string) {
	id, own := l.place()
	not := map[string]string{id: "the run leaves it"}
	for d, f := range l.shunned {
		if d != id && time.Since(f.at) < shunFor {
			not[d] = f.why
		}
	}
	return choose(l.m.devices(), wish{ladder: src.ladder, media: src.media, held: l.m.held(l), own: own,
		young: l.began.IsZero() || time.Since(l.began) < stream.RampHold, require: l.current().Require, not: not})
}

// shunned is why a run does not go to a device, and since when.
type shunned struct {
	why string
	at  time.Time
}

// moveOn takes the run to another device of this worker: the epoch and the URLs
// stay, the next run's number rises. It returns false when no device takes it.
func (l *loop) moveOn(src found, f fault) bool {
	from, _ := l.place()
	fit, refused := l.elsewhere(src)
	l.shunned[from] = shunned{why: f.String(), at: time.Now()}
	was := named(find(l.m.devices(), from))
	for _, o := range fit {
		recorded, err := l.move(o)
		if err == nil {
			l.settleOn(o.device.ID, o.reserved, recorded)
			l.moves(from, o.device.ID, fmt.Sprintf("%s → %s: %s", was, named(o.device), f), recorded)
			return true
		}
		if !errors.Is(err, stream.ErrNoRoom) { // fenced or ended
			l.log.Info("the placement can't move", "error", err)
			return false
		}
		refused = append(refused, o.device.ID+": "+strings.TrimPrefix(err.Error(), stream.ErrNoRoom.Error()+": "))
	}
	if len(fit)+len(refused) > 1 && time.Since(l.unmoved) > unmovedAgain {
		l.unmoved = time.Now()
		l.m.event(l.id, "run.not_moved", "error", fmt.Sprintf("%s: %s; no other device of the worker takes the run: %s", was, f, strings.Join(refused, "; ")))
	}
	return false
}

func (l *loop) moves(from, to, text string, recorded bool) {
	l.unmoved, l.slowAt = time.Time{}, time.Time{}
	l.m.m.moves.Inc()
	l.log.Warn("the run moves to another device", "from", from, "to", to, "recorded", recorded, "detail", text)
	l.m.event(l.id, "run.moved", "warn", text)
}

// move asks the ledger. Redis being away does not hold a run up that nothing else
// can take: the move is recorded later (Manager.record).
func (l *loop) move(o option) (recorded bool, err error) {
	ctx, cancel := context.WithTimeout(l.ctx, storeTimeout)
	defer cancel()
	err = l.m.store.MoveDevice(ctx, l.id, l.epoch, o.device.ID, o.reserved, o.limits)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, stream.ErrNoRoom), errors.Is(err, stream.ErrFenced), errors.Is(err, stream.ErrConflict), errors.Is(err, stream.ErrInvalid):
		return false, err
	}
	l.log.Warn("the move can't be recorded yet", "device", o.device.ID, "error", err)
	return false, nil
}

// limitsOf are the limits of a list's resources, in its order. What has none is
// bounded by nothing.
func limitsOf(r capacity.Report, list []stream.Reservation) []capacity.Limit {
	limits := make([]capacity.Limit, len(list))
	for i, want := range list {
		var ok bool
		if limits[i], ok = r.Limit(want.Resource); !ok {
			limits[i] = capacity.Limit{Limit: math.MaxInt64}
		}
	}
	return limits
}

// record tells Redis where the runs are, and what they hold, where that changed
// while it was away. ctx bounds
// all of it.
func (m *Manager) record(ctx context.Context) {
	m.mu.Lock()
	var moved []*loop
	for _, l := range m.loops {
		if l.misplaced() {
			moved = append(moved, l)
		}
	}
	m.mu.Unlock()
	for _, l := range moved {
		id, reserved := l.place()
		if err := m.store.RecordDevice(ctx, l.id, l.epoch, id, reserved, limitsOf(m.devices(), reserved)); err != nil {
			l.log.Debug("can't record where the run is", "device", id, "error", err)
			continue
		}
		l.log.Info("recorded where the run is", "device", id)
		l.mu.Lock()
		if l.device == id && slices.Equal(l.reserved, reserved) {
			l.placement.Device, l.placement.Reserved = id, reserved
		}
		l.mu.Unlock()
	}
}

// misplaced tells that Redis does not know on which device the run is, or what it
// holds there.
func (l *loop) misplaced() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.over() && l.placement.State == stream.PlacementPlaced && len(l.reserved) > 0 &&
		(l.placement.Device != l.device || !slices.Equal(l.placement.Reserved, l.reserved))
}

// named is a device as events name it.
func named(d capacity.Device) string {
	if d.Kind == capacity.CPU {
		return "the CPU"
	}
	if d.Name == "" {
		return d.ID
	}
	return d.Name + " (" + d.ID + ")"
}
