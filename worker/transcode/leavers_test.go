package transcode

import (
	"context"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/device"
)

// beside puts another loop that encodes on a device in the manager's books.
func (m mover) beside(id, device string, reserved ...stream.Reservation) *loop {
	o := newLoop(m.m, stream.Placement{Stream: id, Epoch: 1, Boot: "b", State: stream.PlacementPlaced, Device: device,
		Reserved: append([]stream.Reservation{{Resource: device, Amount: 1e8}}, reserved...)})
	o.pid.Store(1 << 30) // no process has it
	m.m.mu.Lock()
	defer m.m.mu.Unlock()
	m.m.loops[id], m.m.live[o] = o, struct{}{}
	return o
}

func TestLeaving(t *testing.T) {
	m := newMover(t, "h264")
	four := stream.Reservation{Resource: capacity.ResourceSessions, Amount: 4}
	for name, c := range map[string]struct {
		device string
		leave  func(o *loop)
		want   bool
	}{
		"it stays":             {gpu1, func(*loop) {}, false},
		"it is stopped":        {gpu1, func(o *loop) { o.stop("preempted", false) }, true},
		"it ends":              {gpu1, func(o *loop) { p := o.current(); p.State = stream.PlacementEnding; o.update(p) }, true},
		"Redis is to be asked": {gpu1, func(o *loop) { o.missing = true }, true},
		"its GPAC is gone":     {gpu1, func(o *loop) { o.stop("preempted", false); o.pid.Store(0) }, false},
		"on another card":      {gpu2, func(o *loop) { o.stop("preempted", false) }, false},
		"on the CPU":           {"cpu", func(o *loop) { o.stop("preempted", false) }, false},
		"another one has replaced it": {gpu1, func(o *loop) {
			o.stop("fenced", false)
			o.m.mu.Lock()
			defer o.m.mu.Unlock()
			delete(o.m.loops, o.id)
		}, true},
	} {
		o := m.beside("other", c.device)
		c.leave(o)
		if got := m.m.leaving(m.loop); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		delete(m.m.live, o)
		delete(m.m.loops, "other")
	}
	o := m.beside("other", gpu2, four)
	o.stop("preempted", false)
	if m.m.leaving(m.loop) {
		t.Error("it shares no cap with the other card")
	}
	m.settleOn(gpu1, []stream.Reservation{{Resource: gpu1, Amount: 1}, four}, true)
	if !m.m.leaving(m.loop) {
		t.Error("the cap is of both cards")
	}
	m.settleOn("cpu", []stream.Reservation{{Resource: "cpu", Amount: 1}}, true)
	if m.m.leaving(m.loop) {
		t.Error("the CPU is waited for")
	}
}

// A run begins when the one that leaves its card has gone, or does not go.
func TestARunAwaitsWhoLeaves(t *testing.T) {
	m := newMover(t, "h264")
	o := m.beside("other", gpu1)
	o.stop("preempted", false)
	done := make(chan struct{})
	go func() { m.awaitLeavers(); close(done) }()
	select {
	case <-done:
		t.Fatal("it did not wait")
	case <-time.After(5 * leavePoll):
	}
	o.pid.Store(0)
	select {
	case <-done:
	case <-time.After(leaveTimeout / 2):
		t.Fatal("it waits for nobody")
	}
	o.pid.Store(1 << 30)
	began := time.Now()
	if m.awaitLeavers(); time.Since(began) < leaveTimeout || time.Since(began) > 2*leaveTimeout {
		t.Errorf("it waited %s", time.Since(began))
	}
}

// While Redis is asked of one run, the others can be looked at.
func TestAskingOfOneRunHoldsNobodyUp(t *testing.T) {
	m := newMover(t, "h264")
	asks, answer := make(chan struct{}), make(chan struct{})
	m.store.mu.Lock()
	m.store.gone = func() (stream.Placement, error) {
		asks <- struct{}{}
		<-answer
		return stream.Placement{Stream: "demo", Epoch: 3, State: stream.PlacementEnded}, nil
	}
	m.store.mu.Unlock()
	synced := make(chan error)
	go func() { synced <- m.m.Sync(context.Background()) }()
	<-asks
	if e := m.m.Epochs(); e["demo"] != 3 || m.over() {
		t.Errorf("%v", e)
	}
	close(answer)
	if err := <-synced; err != nil || !m.over() {
		t.Errorf("%v; its placement has ended", err)
	}
}

// What the driver refused is counted by what the worker holds too: NVML's sample
// may be from before.
func TestWhatIsTaughtOfSessionsAndMemory(t *testing.T) {
	m := newMover(t, "h264")
	m.beside("other", gpu2, stream.Reservation{Resource: capacity.ResourceSessions, Amount: 4})
	idle := m.beside("idle", gpu2, stream.Reservation{Resource: capacity.ResourceSessions, Amount: 2})
	idle.pid.Store(0)
	m.pid.Store(77)
	m.dev.report.Devices[1].GPU.Sessions = []capacity.EncoderSession{{PID: 77}, {PID: 78}}
	m.teach(gpu1, fault{kind: device.SessionCap}, 1)
	if m.dev.last.Sessions != 5 {
		t.Errorf("%+v", m.dev.last)
	}
	m.settleOn(gpu1, []stream.Reservation{{Resource: gpu1, Amount: 1}, {Resource: capacity.MemoryResource(gpu1), Amount: 300}}, true)
	m.beside("third", gpu1, stream.Reservation{Resource: capacity.MemoryResource(gpu1), Amount: 700})
	m.teach(gpu1, fault{kind: device.OutOfMemory}, 1)
	if m.dev.last.Memory != 1000 {
		t.Errorf("%+v", m.dev.last)
	}
}
