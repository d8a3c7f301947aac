package controller

import (
	"context"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// A stream that may degrade starts without its top rungs and gets them later.
func TestDegradeAndRestore(t *testing.T) {
	f := newFleetWith(t, func(c *Config) { c.RestoreAfter, c.RestoreEvery = 600*time.Millisecond, 100*time.Millisecond })
	whole := f.price("720p")
	f.worker("w1", "boot1", whole-1)
	f.create(stream.Stream{ID: "show", Profile: "720p", Degrade: true})
	f.send("show")
	p := f.placed("show", "a degraded placement", isPlaced)
	if len(p.Dropped) == 0 || len(p.Profile.Video) == 0 || p.Price >= whole {
		t.Fatalf("placed with %+v, dropped %+v", p.Profile.Video, p.Dropped)
	}
	dropped := len(p.Dropped)
	f.event("show", "placement.committed", "for want of room")
	room := time.Now()
	f.worker("w2", "boot1", plenty)
	f.worker("w1", "boot1", whole)
	after := f.placed("show", "the whole profile", func(p stream.Placement) bool { return len(p.Dropped) == 0 })
	if after.Epoch != p.Epoch+1 || after.Worker != "w1" || len(after.Profile.Video) != len(p.Profile.Video)+dropped || after.Broadcast != p.Broadcast {
		t.Fatalf("restored to %+v", after)
	}
	if d := after.CommittedAt.Sub(room); d < 600*time.Millisecond {
		t.Fatalf("restored after %v of room", d)
	}
	f.event("show", "placement.restored", "w1/cpu")
}

// With preemption, a higher priority takes the place of a lower one, whose
// broadcast goes on: its placement ends without the end of the playlists.
func TestPreempt(t *testing.T) {
	for _, on := range []bool{true, false} {
		f := newFleetWith(t, func(c *Config) { c.Preempt = on })
		f.worker("w1", "boot1", f.price("240p")*3/2)
		f.create(stream.Stream{ID: "low", Profile: "240p", Priority: 10})
		f.create(stream.Stream{ID: "same", Profile: "240p", Priority: 10})
		f.create(stream.Stream{ID: "high", Profile: "240p", Priority: 20})
		f.send("low")
		low := f.placed("low", "the placement of the lower", isPlaced)
		must(t, f.store.SaveRun(t.Context(), "low", stream.Run{ID: stream.RunID{Epoch: low.Epoch, Run: 1}, Broadcast: low.Broadcast}))
		must(t, f.store.AppendSegment(t.Context(), "low", low.Broadcast,
			stream.Segment{Number: 1, Local: 1, Run: stream.RunID{Epoch: low.Epoch, Run: 1}, Duration: 2 * time.Second}, time.Minute))
		f.send("same")
		f.broadcast("same", "that an equal one waits", waits)
		f.send("high")
		if !on {
			f.broadcast("high", "that the higher waits", waits)
			if p, err := f.store.Placement(t.Context(), "low"); err != nil || !isPlaced(p) {
				t.Fatalf("preempted though it is off: %+v, %v", p, err)
			}
			continue
		}
		f.placed("high", "the placement of the higher", isPlaced)
		f.event("low", "placement.preempted", "high")
		b := f.broadcast("low", "that the lower waits", waits)
		p, err := f.store.Placement(t.Context(), "low")
		if err != nil || p.State != stream.PlacementEnded || b.State != stream.BroadcastLive || b.ID != low.Broadcast {
			t.Fatalf("preempted: %+v, %+v, %v", p, b, err)
		}
		if tail, err := f.store.LoadTail(t.Context(), "low"); err != nil || tail.Ended || len(tail.Segments) != 1 {
			t.Fatalf("its playlists: %+v, %v", tail, err)
		}
		f.worker("w2", "boot1", plenty)
		again := f.placed("low", "its return", isPlaced)
		if again.Broadcast != low.Broadcast || again.Epoch != low.Epoch+1 {
			t.Fatalf("it came back as %+v", again)
		}
	}
}

// outruns makes each commit of a stream one that was outrun.
type outruns struct {
	Store
	id string
	n  int
}

func (s *outruns) Commit(ctx context.Context, p store.Proposal) (uint64, error) {
	if p.Placement.Stream == s.id {
		s.n++
		return 0, stream.ErrConflict
	}
	return s.Store.Commit(ctx, p)
}

// Nobody loses its place to one that does not get it.
func TestPreemptionThatFailsEndsNothing(t *testing.T) {
	d := newDatabase(t)
	ctx := t.Context()
	var wrapped *outruns
	c := d.controller("first", func(s Store) Store {
		wrapped = &outruns{Store: s, id: "high"}
		return wrapped
	})
	c.cfg.Preempt = true
	prof, _ := stream.Builtin("240p")
	px := placement.PriceProfile(capacity.CPU, prof).Px
	for id, priority := range map[string]int{"low": 10, "high": 20} {
		must(t, d.store.CreateStream(ctx, stream.Stream{ID: id, Profile: "240p", Grace: 15, HoldBack: 12, Window: 60, Priority: priority}, "hash"))
	}
	d.leads(c)
	d.worker("w1", px*3/2)
	d.publish("low")
	c.turn(ctx)
	d.at = d.at.Add(c.cfg.Hold)
	c.turn(ctx)
	d.publish("low", "high")
	c.turn(ctx)
	low, err := d.store.Placement(ctx, "low")
	must(t, err)
	b, err := d.store.Broadcast(ctx, "low")
	must(t, err)
	if wrapped.n == 0 || low.State != stream.PlacementPlaced || b.WaitingSince != nil {
		t.Fatalf("after %d commits of the higher, the lower is %s and %+v", wrapped.n, low.State, b)
	}
	wrapped.id = ""
	c.turn(ctx)
	if low, err = d.store.Placement(ctx, "low"); err != nil || low.State != stream.PlacementEnded {
		t.Fatalf("the lower is %s, %v", low.State, err)
	}
	if b, err = d.store.Broadcast(ctx, "low"); err != nil || b.WaitingSince == nil {
		t.Fatalf("the lower's broadcast is %+v, %v", b, err)
	}
	if p, err := d.store.Placement(ctx, "high"); err != nil || p.State != stream.PlacementPlaced {
		t.Fatalf("the higher is %+v, %v", p, err)
	}
}

// Rebalancing moves at most its budget, to what is better by the margin; off, it
// moves nothing.
func TestRebalance(t *testing.T) {
	for _, perMinute := range []int{0, 1} {
		f := newFleetWith(t, func(c *Config) {
			c.Rebalance = perMinute
			c.Policy.Rebalance = placement.RebalancePolicy{Margin: 0.2, MinStay: 500 * time.Millisecond}
		})
		px := f.price("240p")
		f.worker("w1", "boot1", 4*px)
		ids := []string{"a", "b", "c"}
		for _, id := range ids {
			f.stream(id, 15)
		}
		f.send(ids...)
		for _, id := range ids {
			f.placed(id, "the placement of "+id, isPlaced)
		}
		f.worker("w2", "boot1", 4*px)
		moved := func() (n int) {
			for _, id := range ids {
				if p, err := f.store.Placement(t.Context(), id); err == nil && p.Worker == "w2" {
					n++
				}
			}
			return n
		}
		if perMinute > 0 {
			testkit.Eventually(t, 10*time.Second, "one move", func() error {
				if moved() != 1 {
					return errNotYet
				}
				return nil
			})
		}
		until := time.Now().Add(1500 * time.Millisecond)
		testkit.Eventually(t, 10*time.Second, "a while", func() error {
			if n := moved(); n > perMinute {
				t.Fatalf("%d moved with a budget of %d a minute", n, perMinute)
			}
			if time.Now().Before(until) {
				return errNotYet
			}
			return nil
		})
	}
}

// The reserve is for those that lost their worker, and only where there is
// another worker.
func TestFailoverReserve(t *testing.T) {
	f := newFleetWith(t, func(c *Config) { c.Policy.Reserve = 0.5 })
	px := f.price("240p")
	f.worker("w1", "boot1", px)
	f.stream("show", 15)
	f.stream("other", 15)
	f.send("show")
	f.placed("show", "a placement that fills the only worker", isPlaced)
	f.worker("w2", "boot1", px)
	f.send("other")
	b := f.broadcast("other", "that the reserve is kept", waits)
	if !contains(b.Reason, "outside the reserve for failover") {
		t.Fatalf("the reason: %q", b.Reason)
	}
	f.loseWorker("w1", false)
	p := f.placed("show", "the failover into the reserve", func(p stream.Placement) bool { return p.Worker == "w2" })
	if p.Epoch != 2 {
		t.Fatalf("moved as %+v", p)
	}
}
