package transcode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// placements is a manager that runs a placement without a source, on a store whose
// state a test loses and restores.
type placements struct {
	*Manager
	t     *testing.T
	store *fakeStore
	ends  *ends
}

// ends is an origin that notes what is ended.
type ends struct {
	Origin
	mu   sync.Mutex
	list []string
}

func (e *ends) Fence(string, uint64) {}

func (e *ends) End(_ context.Context, id string, epoch uint64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, fmt.Sprintf("%s@%d", id, epoch))
	return nil
}

// ended waits for the loop's end, and expects what the origin was told to end.
func (p placements) ended(want ...string) {
	p.t.Helper()
	testkit.Eventually(p.t, 20*time.Second, "the loop's end", func() error {
		if p.loop() != nil {
			return errors.New("it is still there")
		}
		return nil
	})
	p.ends.mu.Lock()
	defer p.ends.mu.Unlock()
	if !slices.Equal(p.ends.list, want) {
		p.t.Errorf("playlists that were closed: %v, expected %v", p.ends.list, want)
	}
}

func newPlacements(t *testing.T) placements {
	t.Helper()
	s := &fakeStore{p: stream.Placement{Stream: "demo", Epoch: 3, Worker: "w1", Boot: "b", Device: "cpu", State: stream.PlacementPlaced,
		Reserved: []stream.Reservation{{Resource: "cpu", Amount: 1e7}}}}
	e := &ends{}
	m := New(Config{Worker: "w1", Boot: "b", Poll: time.Millisecond}, Deps{Store: s, Origin: e, Devices: &fakeDevices{report: host()}})
	t.Cleanup(m.Stop)
	return placements{m, t, s, e}
}

// holds makes Redis say something else of the placement, or that there is none.
func (p placements) holds(change func(*stream.Placement), err error) {
	p.t.Helper()
	p.store.mu.Lock()
	p.store.gone = nil
	if change != nil {
		change(&p.store.p)
	}
	if err != nil {
		p.store.gone = func() (stream.Placement, error) { return stream.Placement{}, err }
	}
	p.store.mu.Unlock()
	if err := p.Sync(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

func (p placements) loop() *loop {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loops["demo"]
}

// stops ends the loop as a worker's stop does, after so many runs.
func (p placements) stops(runs uint32) {
	p.t.Helper()
	l := p.loop()
	l.mu.Lock()
	l.runs = runs
	l.mu.Unlock()
	l.stop("a test", true)
	p.ended()
}

// later makes what the loop remembers so much older.
func (p placements) later(l *loop, d time.Duration) {
	p.mu.Lock()
	l.mu.Lock()
	defer p.mu.Unlock()
	defer l.mu.Unlock()
	for _, at := range []*time.Time{&l.unknown, &l.sent} {
		if !at.IsZero() {
			*at = at.Add(-d)
		}
	}
}

// Redis has lost its state: what runs goes on, what waits for a publisher waits for a
// while, counted from when it sent last.
func TestLostPlacementsGoOn(t *testing.T) {
	p := newPlacements(t)
	p.holds(func(q *stream.Placement) { q.Grace = 15 }, nil)
	l := p.loop()
	goesOn := func(what string) {
		t.Helper()
		p.holds(nil, stream.ErrNotFound)
		if l.over() {
			t.Fatal("it was ended: " + what)
		}
	}
	l.pid.Store(1)
	goesOn("Redis has lost its state")
	p.later(l, 2*forgottenAfter)
	goesOn("and that for long, but it runs")
	l.pid.Store(0)
	goesOn("it is between two runs")
	p.later(l, forgottenAfter)
	goesOn("its grace is not over")
	p.later(l, time.Minute)
	p.holds(nil, stream.ErrNotFound)
	if !l.over() {
		t.Fatal("it waits for ever")
	}
	p.ended("demo@3")
}

// A loop that has waited for long when Redis loses its state waits on from there.
func TestLostPlacementsWaitAnew(t *testing.T) {
	p := newPlacements(t)
	p.holds(nil, nil)
	l := p.loop()
	p.later(l, time.Hour)
	p.holds(nil, stream.ErrNotFound)
	p.later(l, forgottenAfter/2)
	p.holds(nil, nil) // restored
	p.holds(nil, stream.ErrNotFound)
	p.later(l, forgottenAfter/2+time.Second)
	p.holds(nil, stream.ErrNotFound)
	if l.over() {
		t.Fatal("it did not wait for its publisher")
	}
	p.later(l, forgottenAfter/2+time.Second)
	p.holds(nil, stream.ErrNotFound)
	if !l.over() {
		t.Fatal("it waits for ever")
	}
	p.ended("demo@3")
}

// A copy with a lower epoch is restored, which is placed here or elsewhere and which
// nobody places anew, for the publisher has left: the loop above it ends too.
func TestLoopsAboveWhatWasRestoredEnd(t *testing.T) {
	for name, restore := range map[string]func(p placements){
		"here": func(p placements) { p.holds(func(q *stream.Placement) { q.Epoch = 2 }, nil) },
		"elsewhere": func(p placements) {
			p.store.mu.Lock()
			p.store.gone = func() (stream.Placement, error) {
				return stream.Placement{Stream: "demo", Epoch: 2, Worker: "w2", State: stream.PlacementPlaced}, nil
			}
			p.store.mu.Unlock()
			if err := p.Sync(p.t.Context()); err != nil {
				p.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlacements(t)
			p.holds(nil, nil)
			l := p.loop()
			l.pid.Store(1)
			restore(p)
			p.later(l, 2*forgottenAfter)
			restore(p)
			l.pid.Store(0)
			restore(p)
			if l.over() {
				t.Fatal("it did not wait for its publisher")
			}
			p.later(l, 2*forgottenAfter)
			restore(p)
			if !l.over() {
				t.Fatal("it waits for ever")
			}
			p.ended("demo@3")
		})
	}
}

// A copy in which a placement that has ended here still is placed is restored: its
// runs go on with their numbers, so that no URL names two things.
func TestRunsAreNumberedOn(t *testing.T) {
	p := newPlacements(t)
	p.holds(nil, nil)
	p.stops(7)
	p.holds(nil, nil)
	l := p.loop()
	if l == nil {
		t.Fatal("it is not taken again")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs != 7 {
		t.Fatalf("its runs go on after %d", l.runs)
	}
}

// A copy with a lower epoch than one that ran here before is restored: it is not
// begun, and the report says which epoch was reached.
func TestLowerEpochsAreNotBegun(t *testing.T) {
	p := newPlacements(t)
	at := func(epoch uint64) func(*stream.Placement) {
		return func(q *stream.Placement) { q.Epoch = epoch }
	}
	p.holds(at(5), nil)
	p.stops(1)
	p.holds(at(4), nil)
	if l := p.loop(); l != nil {
		t.Fatalf("epoch %d was begun", l.epoch)
	}
	if got := fmt.Sprint(p.Epochs()); got != "map[demo:5]" {
		t.Fatalf("the report says %s", got)
	}
	p.holds(at(6), nil)
	if got := fmt.Sprint(p.Epochs()); got != "map[demo:6]" {
		t.Fatalf("placed above, the report says %s", got)
	}
}
