package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// price is what a profile reserves of a CPU.
func (f *fleet) price(profile string) int64 {
	f.t.Helper()
	p, err := f.store.GetProfile(f.t.Context(), profile)
	if err != nil {
		f.t.Fatal(err)
	}
	return placement.PriceProfile(capacity.CPU, p).Px
}

// send publishes the streams, and those that did before.
func (f *fleet) send(ids ...string) {
	f.mu.Lock()
	sessions := map[string]string{}
	if f.node != nil {
		for _, p := range f.node.Paths {
			sessions[p.Stream] = p.Session
		}
	}
	f.mu.Unlock()
	for _, id := range ids {
		sessions[id] = "s-" + id
	}
	f.publish(sessions)
}

func isPlaced(p stream.Placement) bool { return p.State == stream.PlacementPlaced }

func waits(b stream.Broadcast) bool { return b.WaitingSince != nil && b.Reason != "" }

// end stops a publisher and plays the worker's part in the end of its placement.
func (f *fleet) end(id string) {
	f.t.Helper()
	f.mu.Lock()
	sessions := map[string]string{}
	for _, p := range f.node.Paths {
		if p.Stream != id {
			sessions[p.Stream] = p.Session
		}
	}
	f.mu.Unlock()
	f.publish(sessions)
	p := f.placed(id, "the end of "+id, func(p stream.Placement) bool { return p.State == stream.PlacementEnding })
	if err := f.store.Release(f.t.Context(), id, p.Epoch); err != nil {
		f.t.Fatal(err)
	}
}

// notPlaced checks that none of the streams is.
func (f *fleet) notPlaced(ids ...string) {
	f.t.Helper()
	for _, id := range ids {
		if p, err := f.store.Placement(f.t.Context(), id); err == nil && isPlaced(p) {
			f.t.Fatalf("%s is placed: %+v", id, p)
		}
	}
}

// event waits for an entry of a stream's history.
func (f *fleet) event(id, typ, text string) {
	f.t.Helper()
	testkit.Eventually(f.t, 15*time.Second, typ+" in the history of "+id, func() error {
		events, err := f.store.Events(f.t.Context(), id, "", 100)
		if err != nil {
			return err
		}
		for _, e := range events {
			if e.Type == typ && strings.Contains(e.Message, text) {
				return nil
			}
		}
		return fmt.Errorf("events: %+v", events)
	})
}

// What waits is placed as capacity frees: the higher priority first, then who
// waits longest.
func TestQueueOrder(t *testing.T) {
	f := newFleet(t)
	f.worker("w1", "boot1", f.price("240p")*3/2) // room for one
	for id, priority := range map[string]int{"first": 50, "second": 50, "high": 90, "running": 10} {
		f.create(stream.Stream{ID: id, Profile: "240p", Priority: priority})
	}
	f.send("running")
	f.placed("running", "the first placement", isPlaced)
	for _, id := range []string{"first", "second", "high"} {
		f.send(id)
		f.broadcast(id, "that "+id+" waits", waits)
	}
	for i, id := range []string{"high", "first", "second"} {
		f.end([]string{"running", "high", "first"}[i])
		f.placed(id, id+"'s turn", isPlaced)
		f.notPlaced([]string{"first", "second"}[min(i, 1):][:2-min(i, 2)]...)
		if b := f.broadcast(id, "that its wait is over", func(b stream.Broadcast) bool { return !waits(b) }); b.WaitingSince != nil || b.Reason != "" {
			t.Fatalf("%s is placed and waits: %+v", id, b)
		}
	}
}

// A large ladder is not overtaken for ever by small ones that fit into the gaps.
func TestNobodyStarves(t *testing.T) {
	f := newFleetWith(t, func(c *Config) { c.Patience = 300 * time.Millisecond })
	large, small := f.price("720p"), f.price("240p")
	f.worker("w1", "boot1", large+small/2)
	f.create(stream.Stream{ID: "a-small", Profile: "240p"})
	f.create(stream.Stream{ID: "b-small", Profile: "240p"})
	f.create(stream.Stream{ID: "large", Profile: "720p"})
	f.send("a-small")
	f.placed("a-small", "the placement of the small one", isPlaced)
	f.send("large")
	b := f.broadcast("large", "that the large one waits", waits)
	testkit.Eventually(t, 5*time.Second, "the end of its patience", func() error {
		if time.Since(*b.WaitingSince) < 400*time.Millisecond {
			return fmt.Errorf("too early")
		}
		return nil
	})
	f.send("b-small")
	b = f.broadcast("b-small", "that the next small one waits for it", waits)
	if !strings.Contains(b.Reason, "kept for large") {
		t.Fatalf("the reason: %q", b.Reason)
	}
	f.end("a-small")
	f.placed("large", "the large one", isPlaced)
	f.notPlaced("b-small")
}

// A refusal says of each device which limit it was, and the queue is bounded.
func TestRefusalsAndQueueLimit(t *testing.T) {
	f := newFleetWith(t, func(c *Config) { c.QueueLimit = 1 })
	f.worker("w1", "boot1", 1000)
	f.worker("w2", "boot1", plenty)
	f.mu.Lock()
	f.workers["w2"].Drain = true
	f.mu.Unlock()
	f.worker("w3", "boot1", plenty)
	f.mu.Lock()
	f.workers["w3"].Labels = map[string]string{"class": "other"}
	f.mu.Unlock()
	rules := []stream.Rule{"class!=other"}
	f.create(stream.Stream{ID: "a", Profile: "240p", Require: rules})
	f.create(stream.Stream{ID: "b", Profile: "240p", Require: rules})
	f.send("a")
	b := f.broadcast("a", "a reason", waits)
	for _, want := range []string{"w1/cpu: needs", "of 1000 px/s", "w2: draining", "w3/cpu: does not satisfy class!=other"} {
		if !strings.Contains(b.Reason, want) {
			t.Errorf("the reason lacks %q: %q", want, b.Reason)
		}
	}
	f.send("b")
	b = f.broadcast("b", "a refusal by the queue", func(b stream.Broadcast) bool { return b.Reason != "" })
	if b.WaitingSince != nil || !strings.Contains(b.Reason, "1 streams wait for capacity already, the queue's limit") {
		t.Fatalf("beyond the limit: %+v", b)
	}
	f.worker("w1", "boot1", plenty)
	f.placed("a", "a placement once there is room", isPlaced)
	f.placed("b", "a placement of what the queue refused", isPlaced)
}

func TestClip(t *testing.T) {
	for in, want := range map[string]string{"short": "short", "exactly 10": "exactly 10", "eleven char": "eleven …", "ééééé+": "ééé…"} {
		if got := clip(in, 10); got != want {
			t.Errorf("clip(%q) = %q, want %q", in, got, want)
		}
	}
}

// What refuses a waiting stream may alternate all the time: the history tells it
// when the wait begins, and once a minute.
func TestWaitDoesNotFlap(t *testing.T) {
	f := newFleet(t)
	c, err := New(Config{Holder: "idle"}, f.store, nil, f.probe, hclog.NewNullLogger(), prometheus.NewRegistry())
	must(t, err)
	now := time.Now()
	c.now = func() time.Time { return now }
	st := &streamSeen{broadcast: &stream.Broadcast{ID: "b", Stream: "show", State: stream.BroadcastLive}}
	for i := range 130 {
		code := []string{"px", "memory"}[i/5%2]
		must(t, c.wait(t.Context(), st, true, code, code))
		if i%5 == 0 && st.broadcast.Reason != code {
			t.Fatalf("after %d s the reason is %q, not %q", i, st.broadcast.Reason, code)
		}
		now = now.Add(time.Second)
	}
	events, err := f.store.Events(t.Context(), "show", "", 100)
	must(t, err)
	if n := len(events); n < 2 || n > 3 {
		t.Fatalf("%d events in 130 s: %+v", n, events)
	}
}
