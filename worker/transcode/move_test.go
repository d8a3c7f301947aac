package transcode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/device"
)

// fakeDevices is a host whose cards become unusable when they fail.
type fakeDevices struct {
	mu     sync.Mutex
	report capacity.Report
	learnt []string
	last   device.Failure
}

func (f *fakeDevices) Fill(r *capacity.Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	worker := r.Worker
	*r = f.report
	r.Worker, r.Devices = worker, slices.Clone(f.report.Devices)
}

func (f *fakeDevices) Learn(id string, x device.Failure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.learnt = append(f.learnt, fmt.Sprintf("%s %s %d", id, x.Kind, x.InUse))
	f.last = x
	for i, d := range f.report.Devices {
		if d.ID == id && x.Kind == device.OpenFailed {
			f.report.Devices[i].Usable, f.report.Devices[i].Reason = false, x.Detail
		}
	}
}

// fakeStore holds one placement; it can be away, and refuse devices.
type fakeStore struct {
	Store
	mu     sync.Mutex
	away   bool
	full   map[string]bool
	p      stream.Placement
	calls  []string
	events []stream.Event
	gone   func() (stream.Placement, error) // says why the placement is not the worker's; nil: it is
}

func (s *fakeStore) do(call string, f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	if s.away {
		return errors.New("redis: connection refused")
	}
	return f()
}

func (s *fakeStore) put(dev string, reserved []stream.Reservation) error {
	s.p.Device, s.p.Reserved = dev, reserved
	return nil
}

func (s *fakeStore) MoveDevice(_ context.Context, _ string, _ uint64, dev string, reserved []stream.Reservation, limits []capacity.Limit) error {
	return s.do("move "+dev, func() error {
		if len(limits) != len(reserved) {
			return stream.ErrInvalid
		}
		if s.full[dev] {
			return fmt.Errorf("moving: %w: the ledger is full", stream.ErrNoRoom)
		}
		return s.put(dev, reserved)
	})
}

func (s *fakeStore) RecordDevice(_ context.Context, _ string, _ uint64, dev string, reserved []stream.Reservation, limits []capacity.Limit) error {
	return s.do("record "+dev, func() error { return s.put(dev, reserved) })
}

func (s *fakeStore) Reprice(_ context.Context, _ string, _ uint64, reserved []stream.Reservation) error {
	return s.do("reprice "+reserved[0].Resource, func() error {
		if s.full[reserved[0].Resource] {
			return fmt.Errorf("%w: the ledger is full", stream.ErrNoRoom)
		}
		return s.put(s.p.Device, reserved)
	})
}

func (s *fakeStore) Placements(context.Context, string) (list []stream.Placement, err error) {
	err = s.do("list", func() error {
		if s.gone == nil {
			list = []stream.Placement{s.p}
		}
		return nil
	})
	return list, err
}

func (s *fakeStore) Placement(context.Context, string) (stream.Placement, error) {
	s.mu.Lock()
	p, gone := s.p, s.gone
	s.mu.Unlock()
	if gone == nil {
		return p, nil
	}
	return gone()
}

func (s *fakeStore) PutStatus(context.Context, stream.RunStatus) error { return nil }

func (s *fakeStore) AddEvent(_ context.Context, e stream.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	return nil
}

// count is how many events of a type came before now.
func (m mover) count(typ string) (n int) {
	m.m.event("demo", "test.marker", "info", "")
	m.store.happened("test.marker")
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	for _, e := range m.store.events {
		if e.Type == typ {
			n++
		}
	}
	m.store.events = nil
	return n
}

func (s *fakeStore) happened(typ string) string {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		for _, e := range s.events {
			if e.Type == typ {
				s.mu.Unlock()
				return e.Message
			}
		}
		s.mu.Unlock()
	}
	return "no event " + typ
}

// mover is a loop on a card, without its goroutine.
type mover struct {
	*loop
	dev   *fakeDevices
	store *fakeStore
	src   found
}

func newMover(t *testing.T, codecs ...string) mover {
	t.Helper()
	p := stream.Placement{Stream: "demo", Epoch: 3, Worker: "w1", Boot: "b", Device: gpu1, State: stream.PlacementPlaced,
		Reserved: []stream.Reservation{{Resource: gpu1, Amount: 2e8}, {Resource: "cpu", Amount: 1e7}}}
	dev, store := &fakeDevices{report: host()}, &fakeStore{p: p, full: map[string]bool{}}
	m := New(Config{Worker: "w1", Boot: "b", Poll: time.Millisecond}, Deps{Store: store, Devices: dev})
	l := newLoop(m, p)
	m.mu.Lock()
	m.loops["demo"] = l
	m.mu.Unlock()
	t.Cleanup(func() { l.cancel(); m.Stop() })
	src := found{placement: p}
	src.ladder, src.media = rungs(codecs...)
	return mover{l, dev, store, src}
}

// fail lets the card's encoder fail, as a run does.
func (m mover) fail() bool {
	id, _ := m.place()
	f, ok := encoderFault([]string{"[FFEnc] No codecid specified"}, find(m.m.devices(), id))
	if !ok {
		return false
	}
	m.teach(id, f, 1)
	return m.moveOn(m.src, f)
}

func (m mover) at(t *testing.T, id string, recorded bool) {
	t.Helper()
	on, reserved := m.place()
	if on != id || reserved[0].Resource != id || m.status().Device != id || recorded != (m.store.p.Device == id) {
		t.Errorf("it is on %s holding %v, Redis says %s holding %v; want %s", on, reserved, m.store.p.Device, m.store.p.Reserved, id)
	}
}

func TestMovesToTheNextCardAndThenTheCPU(t *testing.T) {
	m := newMover(t, "h264", "h264")
	if !m.fail() {
		t.Fatal("it did not move")
	}
	m.at(t, gpu2, true)
	if text := m.store.happened("run.moved"); !strings.Contains(text, "NVIDIA 1 ("+gpu1+") → NVIDIA 2 ("+gpu2+"): its encoder failed: [FFEnc] No codecid specified") {
		t.Error(text)
	}
	if !m.fail() {
		t.Fatal("it did not move again")
	}
	m.at(t, "cpu", true)
	if want := []string{gpu1 + " open_failed 200000000", gpu2 + " open_failed"}; m.dev.learnt[0] != want[0] || !strings.HasPrefix(m.dev.learnt[1], want[1]) {
		t.Errorf("learnt %v", m.dev.learnt)
	}
	if m.fail() || len(m.dev.learnt) != 2 {
		t.Error("x264 was blamed")
	}
}

// The ledger knows more than the worker.
func TestAFullCardIsPassedOver(t *testing.T) {
	m := newMover(t, "h264")
	m.store.full[gpu2] = true
	if !m.fail() {
		t.Fatal("it did not move")
	}
	m.at(t, "cpu", true)
	if !slices.Equal(m.store.calls, []string{"move " + gpu2, "move cpu"}) {
		t.Error(m.store.calls)
	}
}

func TestNowhereToGo(t *testing.T) {
	m := newMover(t, "hevc")
	m.store.full[gpu2] = true
	if m.fail() {
		t.Fatal("it moved")
	}
	m.at(t, gpu1, true)
	text := m.store.happened("run.not_moved")
	for _, want := range []string{"NVIDIA 1", "[FFEnc] No codecid specified", "cpu: can't encode r0 (hevc)", gpu1 + ": the run leaves it", gpu2 + ": ", "the ledger is full"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q says nothing of %q", text, want)
		}
	}
	// It does not start there while the card is out of use; the status says why.
	var back backoff
	if m.book(m.src, &back) || m.status().State != stream.RunBackoff || !strings.Contains(m.status().LastError, "not usable: [FFEnc] No codecid specified") {
		t.Errorf("%+v", m.status())
	}
}

// While Redis is away the run moves all the same, to what has room as far as the
// worker knows, and Redis is told when it is back.
func TestMovesWithoutRedis(t *testing.T) {
	m := newMover(t, "h264")
	m.store.away = true
	other := newLoop(m.m, stream.Placement{Stream: "other", Device: gpu2, Reserved: []stream.Reservation{{Resource: gpu2, Amount: 1e9}}})
	m.m.mu.Lock()
	m.m.loops["other"] = other
	m.m.mu.Unlock()
	if !m.fail() {
		t.Fatal("it did not move")
	}
	m.at(t, "cpu", false)
	if !m.book(m.src, &backoff{}) || m.m.Sync(t.Context()) == nil {
		t.Fatal("it can't start, or Redis is not away")
	}
	m.at(t, "cpu", false)
	other.cancel()
	m.store.mu.Lock()
	m.store.away = false
	m.store.mu.Unlock()
	for range 2 {
		if err := m.m.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m.at(t, "cpu", true)
	if n := strings.Count(strings.Join(m.store.calls, ","), "record cpu"); n != 1 {
		t.Errorf("recorded %d times: %v", n, m.store.calls)
	}
}

func TestBook(t *testing.T) {
	t.Run("what it costs", func(t *testing.T) {
		m := newMover(t, "h264")
		if !m.book(m.src, &backoff{}) || m.store.p.Reserved[0].Amount != 1280*720*30 {
			t.Errorf("%+v", m.store.p)
		}
		m.at(t, gpu1, true)
	})
	t.Run("what was returned comes back", func(t *testing.T) {
		m := newMover(t, "h264")
		video := m.src
		m.src.ladder.Video, m.src.media = nil, stream.SourceMedia{}
		if !m.book(m.src, &backoff{}) || len(lacking(m.store.p.Reserved, []stream.Reservation{{Resource: "cpu"}, {Resource: capacity.ResourceSessions}})) != 2 {
			t.Fatalf("sound alone: %+v", m.store.p)
		}
		if !m.book(video, &backoff{}) || len(lacking(m.store.p.Reserved, []stream.Reservation{{Resource: "cpu"}, {Resource: capacity.ResourceSessions}})) != 0 {
			t.Fatalf("with video again: %+v", m.store.p)
		}
		m.at(t, gpu1, true)
	})
	t.Run("dearer while Redis is away", func(t *testing.T) {
		m := newMover(t, "h264")
		m.store.away = true
		if !m.book(m.src, &backoff{}) || m.store.p.Reserved[0].Amount == 1280*720*30 {
			t.Fatalf("%+v", m.store.p)
		}
		m.store.mu.Lock()
		m.store.away = false
		m.store.mu.Unlock()
		for range 2 {
			if err := m.m.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		_, reserved := m.place()
		if n := strings.Count(strings.Join(m.store.calls, ","), "record "+gpu1); n != 1 || !slices.Equal(m.store.p.Reserved, reserved) || reserved[0].Amount != 1280*720*30 {
			t.Errorf("recorded %d times: %v; Redis has %v", n, reserved, m.store.p.Reserved)
		}
	})
	t.Run("a card that is gone", func(t *testing.T) {
		m := newMover(t, "h264")
		m.dev.report.Devices = slices.Delete(m.dev.report.Devices, 1, 2)
		if !m.book(m.src, &backoff{}) {
			t.Error("it waits")
		}
		m.at(t, gpu2, true)
		if text := m.store.happened("run.moved"); !strings.Contains(text, gpu1+" → ") || !strings.Contains(text, "the worker has no such device") {
			t.Error(text)
		}
	})
	t.Run("a codec that it lacks", func(t *testing.T) {
		m := newMover(t, "av1")
		m.dev.report.Devices[1].Codecs = []string{"h264"}
		m.dev.report.Devices[2].Codecs = []string{"av1"}
		if !m.book(m.src, &backoff{}) {
			t.Error("it waits")
		}
		m.at(t, gpu2, true)
	})
	t.Run("a codec that all lack", func(t *testing.T) {
		m := newMover(t, "av1")
		m.settleOn("cpu", []stream.Reservation{{Resource: "cpu", Amount: 1}}, true)
		m.dev.report.Devices = m.dev.report.Devices[:1]
		if m.book(m.src, &backoff{}) || m.status().State != stream.RunRefused || !strings.Contains(m.status().LastError, "the CPU can't encode r0 (av1)") {
			t.Errorf("%+v", m.status())
		}
	})
	t.Run("a source that is dearer than the room", func(t *testing.T) {
		m := newMover(t, "h264")
		m.store.full[gpu1], m.store.full[gpu2] = true, true
		if !m.book(m.src, &backoff{}) {
			t.Error("it waits")
		}
		m.at(t, "cpu", true)
	})
}

// A slow run ends only when the ledger has let it go elsewhere.
func TestASlowRunStaysWhereNothingTakesIt(t *testing.T) {
	slow := func(m mover) *fault {
		var p pace
		feed(&p, []float64{2.8, 2.8, 2.8, 2.8, 2.8}, []float64{2, 2, 2, 2, 2})
		for range unreadLooks {
			p.look(false)
		}
		return m.slower(&p, m.src)
	}
	m := newMover(t, "h264")
	m.store.full[gpu2], m.store.full["cpu"] = true, true
	if f := slow(m); f != nil {
		t.Fatalf("it ends: %v", f)
	}
	m.at(t, gpu1, true)
	if text := m.store.happened("run.not_moved"); !strings.Contains(text, "it is too slow: 720p is made at 0.71 of real time while the source delivers") {
		t.Error(text)
	}
	if want := gpu1 + " too_slow 14285714"; !strings.HasPrefix(m.dev.learnt[0], want) { // 2e8 px/s at 2/2.8 of real time
		t.Errorf("learnt %v, want %s", m.dev.learnt, want)
	}
	if slow(m); len(m.dev.learnt) != 1 {
		t.Error("it is judged again at once")
	}

	// The card has been seen to do more than what is held there at that pace.
	m = newMover(t, "h264")
	m.store.full[gpu2], m.store.full["cpu"] = true, true
	m.dev.report.Devices[1].Used = ptr[int64](3e8)
	if slow(m); !slices.Equal(m.dev.learnt, []string{gpu1 + " too_slow 300000000"}) {
		t.Errorf("learnt %v", m.dev.learnt)
	}

	// Its encoders are idle: it learns nothing, and the run goes where there is room.
	m = newMover(t, "h264")
	m.dev.report.Devices[1].GPU.EncoderUtilization = ptr(12)
	if f := slow(m); f == nil || f.kind != "" || len(m.dev.learnt) != 0 {
		t.Errorf("%v, learnt %v", f, m.dev.learnt)
	}
	m.at(t, gpu2, true)
	m = newMover(t, "h264")
	m.store.full[gpu2], m.store.full["cpu"] = true, true
	m.dev.report.Devices[1].GPU.EncoderUtilization = ptr(12)
	if f := slow(m); f != nil || len(m.dev.learnt) != 0 {
		t.Errorf("%v, learnt %v", f, m.dev.learnt)
	}
	m.at(t, gpu1, true)

	m = newMover(t, "h264")
	if f := slow(m); f == nil || f.kind != device.TooSlow {
		t.Fatalf("it stays: %v", f)
	}
	m.at(t, gpu2, true)

	// The host's CPU is full: another card would not help.
	m = newMover(t, "h264")
	m.dev.report.Devices[0].Load = ptr(0.99)
	if f := slow(m); f != nil {
		t.Fatalf("it ends: %v", f)
	}
	if text := m.store.happened("run.slow"); !strings.HasPrefix(text, "the CPU: it is too slow") {
		t.Error(text)
	}
	m.at(t, gpu1, true)
}
