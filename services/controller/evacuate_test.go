package controller

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func (f *fleet) drain(id string) {
	f.t.Helper()
	if err := f.store.PutDrain(f.t.Context(), id, store.Drain{Since: time.Now()}); err != nil {
		f.t.Fatal(err)
	}
}

func on(worker string) func(stream.Placement) bool {
	return func(p stream.Placement) bool { return isPlaced(p) && p.Worker == worker }
}

// runs plays the worker's part in a move: it says that the run lists segments.
func (f *fleet) running(p stream.Placement) {
	f.t.Helper()
	if err := f.store.PutStatus(f.t.Context(), stream.RunStatus{Stream: p.Stream, Epoch: p.Epoch, State: stream.RunRunning}); err != nil {
		f.t.Fatal(err)
	}
}

// full starts n streams on w1 and then a second worker.
func (f *fleet) full(n int) (ids []string) {
	f.worker("w1", "boot1", plenty)
	for i := range n {
		id := fmt.Sprintf("s%d", i)
		f.stream(id, 15)
		ids = append(ids, id)
	}
	f.send(ids...)
	for _, id := range ids {
		f.running(f.placed(id, id+" on w1", on("w1")))
	}
	f.worker("w2", "boot1", plenty)
	return ids
}

func (f *fleet) at(worker string, ids []string) (n int) {
	for _, id := range ids {
		if p, err := f.store.Placement(f.t.Context(), id); err == nil && on(worker)(p) {
			n++
		}
	}
	return n
}

// An operator drains a worker: its streams leave it, not more at a time than is
// allowed, and nothing new comes.
func TestDrainedWorkerIsLeftAtABoundedPace(t *testing.T) {
	f := newFleetWith(t, func(c *Config) { c.DrainMoves = 2 })
	ids := f.full(5)
	f.drain("w1")
	testkit.Eventually(t, 15*time.Second, "two moves", func() error {
		if n := f.at("w2", ids); n != 2 {
			return fmt.Errorf("%d moved", n)
		}
		return nil
	})
	// The two do not run yet, so the others stay. A stream that begins now shows
	// that turns go by, and that nothing new comes to w1.
	for i := range 3 {
		id := fmt.Sprintf("new%d", i)
		f.stream(id, 15)
		f.send(id)
		f.placed(id, id+" on the other worker", on("w2"))
	}
	if n := f.at("w2", ids); n != 2 {
		t.Fatalf("%d moved before the first two ran, want 2", n)
	}
	testkit.Eventually(t, 30*time.Second, "the others' moves", func() error {
		for _, id := range ids {
			if p, err := f.store.Placement(t.Context(), id); err == nil && on("w2")(p) {
				f.running(p)
			}
		}
		if n := f.at("w1", ids); n > 0 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
	for _, id := range ids {
		f.event(id, "placement.moved", "worker w1 drains (an operator asked for it)")
		if p := f.placed(id, "", isPlaced); p.Epoch != 2 {
			t.Errorf("%s moved more than once: epoch %d", id, p.Epoch)
		}
	}

	// The wish outlives the leader and lasts until it is taken back.
	f.worker("w2", "boot1", 1000)
	f.stream("late", 15)
	f.send("late")
	if b := f.broadcast("late", "that the next stream waits", waits); !strings.Contains(b.Reason, "w1: draining") {
		t.Fatalf("the reason: %q", b.Reason)
	}
	if had, err := f.store.DeleteDrain(t.Context(), "w1"); err != nil || !had {
		t.Fatal(had, err)
	}
	f.placed("late", "its place on the worker that drains no longer", on("w1"))
}

// A stream that fits nowhere else stays, says which limit refused it, and moves
// when there is room.
func TestDrainEndsNothing(t *testing.T) {
	f := newFleet(t)
	f.full(1)
	f.worker("w2", "boot1", 1000)
	testkit.Eventually(t, 10*time.Second, "w2's report", func() error {
		return f.reported("w2", func(r capacity.Report) bool { return *r.Devices[0].Capacity == 1000 })
	})
	f.drain("w1")
	f.event("s0", "placement.stays", "worker w1 drains (an operator asked for it)")
	f.event("s0", "placement.stays", "of 1000 px/s")
	if p := f.placed("s0", "", isPlaced); p.Worker != "w1" || p.Epoch != 1 {
		t.Fatalf("placement %+v", p)
	}
	f.worker("w2", "boot1", plenty)
	f.placed("s0", "the move once there is room", on("w2"))
}

// The streams of a worker that stops leave at once, all of them.
func TestStoppingWorkerIsLeftAtOnce(t *testing.T) {
	f := newFleetWith(t, func(c *Config) { c.DrainMoves = 1 })
	ids := f.full(5)
	f.mu.Lock()
	f.workers["w1"].Drain = true
	f.mu.Unlock()
	testkit.Eventually(t, moveTime/2, "all moves, though none of them runs", func() error {
		if n := f.at("w2", ids); n != 5 {
			return fmt.Errorf("%d moved", n)
		}
		return nil
	})
	f.event("s0", "placement.moved", "worker w1 drains (it stops)")
}

// reported checks the last report of a worker.
func (f *fleet) reported(id string, ok func(capacity.Report) bool) error {
	reports, err := f.store.Reports(f.t.Context())
	if err != nil {
		return err
	}
	for _, r := range reports {
		if r.Worker == id && ok(r.Report) {
			return nil
		}
	}
	return errors.New("not yet")
}

// nomadNodes is a Nomad that says what a test tells it to.
type nomadNodes struct {
	mu       sync.Mutex
	draining map[string]string
	down     map[string]bool
}

func (n *nomadNodes) Draining(node string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.draining[node]
}

func (n *nomadNodes) Down(node string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down[node]
}

// onNode says on which Nomad node a worker runs.
func (f *fleet) onNode(worker, node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.workers[worker].NomadNode = node
}

// A worker drains with its Nomad node, and takes streams again with it.
func TestNomadNodeDrains(t *testing.T) {
	nodes := &nomadNodes{draining: map[string]string{}}
	f := newFleetWith(t, func(c *Config) { c.Nodes = nodes })
	ids := f.full(3)
	f.onNode("w1", "node-1")
	f.onNode("w2", "node-2")
	nodes.mu.Lock()
	nodes.draining["node-1"] = "its Nomad node n1 drains"
	nodes.mu.Unlock()
	testkit.Eventually(t, 30*time.Second, "all moves", func() error {
		for _, id := range ids {
			if p, err := f.store.Placement(t.Context(), id); err == nil && on("w2")(p) {
				f.running(p)
			}
		}
		if n := f.at("w2", ids); n != 3 {
			return fmt.Errorf("%d moved", n)
		}
		return nil
	})
	f.event("s0", "placement.moved", "worker w1 drains (its Nomad node n1 drains)")
}

// That a node is down makes the controller ask its worker early. What the worker
// says counts: one that answers stays.
func TestNomadNodeIsDown(t *testing.T) {
	nodes := &nomadNodes{down: map[string]bool{"node-1": true}}
	f := newFleetWith(t, func(c *Config) { c.Nodes, c.Suspect = nodes, 8*time.Second })
	f.worker("w1", "boot1", plenty)
	f.onNode("w1", "node-1")
	f.stream("show", 15)
	f.send("show")
	f.placed("show", "the first placement, though the node is down", on("w1"))
	f.worker("w2", "boot1", plenty)
	began := time.Now()
	f.loseWorker("w1", false)
	f.placed("show", "the move", on("w2"))
	if took := time.Since(began); took >= 8*time.Second {
		t.Errorf("it took %v, no less than without the hint", took)
	}
	f.worker("w1", "boot1", plenty)
	f.onNode("w1", "node-1")
	f.stream("next", 15)
	f.worker("w2", "boot1", 1000)
	f.send("next")
	f.placed("next", "a stream on the worker that is back, whatever Nomad says", on("w1"))
}
