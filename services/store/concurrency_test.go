package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// limits of every worker in these tests.
func limitOf(resource string) int64 {
	switch resource {
	case "nvenc-sessions":
		return 5
	case gpu0 + "/memory", gpu1 + "/memory":
		return 1000
	}
	return 100
}

func limitsOf(reserved []stream.Reservation, used int64) []capacity.Limit {
	list := make([]capacity.Limit, len(reserved))
	for i, r := range reserved {
		list[i].Limit = limitOf(r.Resource)
		if used > 0 && r.Resource == "cpu" {
			list[i].Used = &used
		}
	}
	return list
}

// step is what a client does next.
type step struct {
	kind     int
	stream   int
	worker   int
	reserved []stream.Reservation
	used     int64
	// dies is when the client goes away after it began the call; 0 for never.
	dies time.Duration
}

func drawReserved(rt *rapid.T) []stream.Reservation {
	device := rapid.SampledFrom([]string{"cpu", gpu0, gpu1}).Draw(rt, "device")
	list := res(device, rapid.IntRange(1, 60).Draw(rt, "px"))
	if device != "cpu" {
		list = append(list, res(device+"/memory", rapid.IntRange(1, 500).Draw(rt, "memory"), "cpu", rapid.IntRange(1, 30).Draw(rt, "share"))...)
		if rapid.Bool().Draw(rt, "geforce") {
			list = append(list, res("nvenc-sessions", rapid.IntRange(1, 3).Draw(rt, "sessions"))...)
		}
	}
	return list
}

func drawStep(streams, workers int) *rapid.Generator[step] {
	return rapid.Custom(func(rt *rapid.T) step {
		st := step{kind: rapid.IntRange(0, 9).Draw(rt, "kind"), stream: rapid.IntRange(0, streams-1).Draw(rt, "stream"),
			worker: rapid.IntRange(0, workers-1).Draw(rt, "worker"), reserved: drawReserved(rt)}
		if rapid.IntRange(0, 3).Draw(rt, "measured") == 0 {
			st.used = int64(rapid.IntRange(1, 90).Draw(rt, "used"))
		}
		if rapid.IntRange(0, 4).Draw(rt, "mortal") == 0 {
			st.dies = time.Duration(rapid.IntRange(1, 800).Draw(rt, "dies")) * time.Microsecond
		}
		return st
	})
}

// outcomes counts what came of the steps, over all cases.
type outcomes struct{ steps, commits, repriced, moved, released, noRoom, lost, died atomic.Int64 }

// scene is one case: clients on replicas over some streams and workers.
type scene struct {
	tag     string
	forced  bool // RecordDevice is used, which may exceed a limit
	highest []atomic.Uint64
	done    *outcomes
	fail    chan error
}

func (c *scene) stream(i int) string { return fmt.Sprintf("%s-s%d", c.tag, i) }
func (c *scene) worker(i int) string { return fmt.Sprintf("%s-w%d", c.tag, i) }

func (c *scene) report(format string, args ...any) {
	select {
	case c.fail <- fmt.Errorf(format, args...):
	default:
	}
}

// play does one step. Whatever is refused is refused; other errors fail, but for
// those of a client that has gone.
func (c *scene) play(ctx context.Context, s *store.Store, st step) {
	c.done.steps.Add(1)
	if st.dies > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, st.dies)
		defer cancel()
	}
	id := c.stream(st.stream)
	p, err := s.Placement(ctx, id)
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		if st.dies == 0 {
			c.report("reading a placement: %w", err)
		}
		return
	}
	switch st.kind {
	case 0, 1, 2, 3:
		var e uint64
		if e, err = s.Commit(ctx, on(id, c.worker(st.worker), p.Epoch, st.reserved, limitsOf(st.reserved, st.used)...)); err == nil {
			c.rose(st.stream, p.Epoch, e)
			c.done.commits.Add(1)
		}
	case 4, 5:
		if err = s.Reprice(ctx, id, p.Epoch, reprice(p.Reserved, st.reserved)); err == nil {
			c.done.repriced.Add(1)
		}
	case 6, 7:
		move := s.MoveDevice
		if c.forced && st.kind == 7 {
			move = s.RecordDevice
		}
		if err = move(ctx, id, p.Epoch, st.reserved[0].Resource, st.reserved, limitsOf(st.reserved, st.used)); err == nil {
			c.done.moved.Add(1)
		}
	case 8:
		err = s.SetEnding(ctx, id, p.Epoch)
	case 9:
		if p.Epoch == 0 {
			return
		}
		if err = s.Release(ctx, id, p.Epoch); err == nil {
			c.done.released.Add(1)
		}
	}
	switch {
	case err == nil:
	case errors.Is(err, stream.ErrNoRoom):
		c.done.noRoom.Add(1)
	case errors.Is(err, stream.ErrConflict), errors.Is(err, stream.ErrFenced), errors.Is(err, stream.ErrNotFound):
		c.done.lost.Add(1)
	case p.Epoch == 0 && errors.Is(err, stream.ErrInvalid): // nothing to reprice
	case st.dies > 0:
		c.done.died.Add(1)
	default:
		c.report("step %d: %w", st.kind, err)
	}
}

// reprice gives what is held the amounts of another list, and now and then leaves
// the last of it out.
func reprice(held, amounts []stream.Reservation) []stream.Reservation {
	list := append([]stream.Reservation(nil), held...)
	for i := range list {
		list[i].Amount = amounts[i%len(amounts)].Amount
	}
	if len(list) > 1 && amounts[0].Amount%4 == 0 {
		list = list[:len(list)-1]
	}
	return list
}

func (c *scene) rose(i int, from, to uint64) {
	if to <= from {
		c.report("epoch %d of stream %d after %d", to, i, from)
	}
	for {
		old := c.highest[i].Load()
		if to == old {
			c.report("epoch %d of stream %d was given twice", to, i)
		}
		if to < old || c.highest[i].CompareAndSwap(old, to) {
			return
		}
	}
}

// watch checks, again and again, what must hold at every moment.
func (c *scene) watch(ctx context.Context, s *store.Store, l *store.Ledgers, workers int, stop <-chan struct{}) {
	for {
		for i := range workers {
			ledger, err := s.Ledger(ctx, c.worker(i))
			if err != nil {
				c.report("reading a ledger: %w", err)
			}
			for resource, held := range ledger {
				if sum := total(held); !c.forced && sum > limitOf(resource) {
					c.report("%d of %d %s reserved: %v", sum, limitOf(resource), resource, held)
				}
			}
			// Nothing is ever half done: there is nothing to repair, whoever died.
			if repaired, err := s.RepairLedger(ctx, c.worker(i)); err != nil || len(repaired) > 0 {
				c.report("repaired %q, %w", repaired, err)
			}
			if differ, err := l.Audit(ctx, c.worker(i)); err != nil || len(differ) > 0 {
				c.report("the view differs: %q, %w", differ, err)
			}
		}
		select {
		case <-stop:
			return
		default:
		}
	}
}

// atRest checks that what is reserved is exactly what is placed, each stream once.
func (c *scene) atRest(rt *rapid.T, t *testing.T, s *store.Store, l *store.Ledgers, workers int) {
	ctx := t.Context()
	placed := map[string]int64{}
	for i := range c.highest {
		id := c.stream(i)
		p, err := s.Placement(ctx, id)
		if errors.Is(err, stream.ErrNotFound) {
			continue
		}
		if err != nil {
			rt.Fatal(err)
		}
		if p.Epoch < c.highest[i].Load() {
			rt.Fatalf("the placement of %s is of epoch %d, %d was given", id, p.Epoch, c.highest[i].Load())
		}
		if p.State == stream.PlacementEnded {
			continue
		}
		if p.Device != p.Reserved[0].Resource || p.Price != p.Reserved[0].Amount {
			rt.Fatalf("the placement is on %s at %d and holds %v", p.Device, p.Price, p.Reserved)
		}
		for _, r := range p.Reserved {
			placed[p.Worker+"/"+r.Resource+"/"+id] = r.Amount
		}
	}
	names := make([]string, workers)
	for i := range workers {
		w := c.worker(i)
		names[i] = w
		ledger, err := s.Ledger(ctx, w)
		if err != nil {
			rt.Fatal(err)
		}
		for resource, streams := range ledger {
			for id, h := range streams {
				if k := w + "/" + resource + "/" + id; placed[k] != h.Amount {
					rt.Fatalf("%s holds %d, placed are %d", k, h.Amount, placed[k])
				} else {
					delete(placed, k)
				}
			}
		}
	}
	if len(placed) != 0 {
		rt.Fatalf("placed and not reserved: %v", placed)
	}
	if _, err := l.Refresh(ctx); err != nil {
		rt.Fatal(err)
	}
	if err := sameAs(l, s, t, names...); err != nil {
		rt.Fatal(err)
	}
}

// Clients on several replicas commit, change, move, release and re-place the same
// streams at once, and die in the middle of calls. At every moment no resource's
// reservations are above its limit; a stream has one placement; what is reserved
// is what is placed; epochs rise; a view follows.
func TestConcurrentCommits(t *testing.T) {
	s, state, live := open(t)
	replicas := []*store.Store{}
	for range 8 { // without a log: clients that die would fill it
		r, err := store.Open(t.Context(), store.Options{StateURL: state.URL(0), LiveURL: live.URL(0)})
		must(t, err)
		defer func() { must(t, r.Close()) }()
		replicas = append(replicas, r)
	}
	view := s.NewLedgers() // of all cases: it grows old with them
	cases, o := 0, &outcomes{}
	rapid.Check(t, func(rt *rapid.T) {
		cases++
		streams, workers := rapid.IntRange(1, 6).Draw(rt, "streams"), rapid.IntRange(1, 3).Draw(rt, "workers")
		c := &scene{tag: fmt.Sprintf("r%d", cases), forced: rapid.IntRange(0, 4).Draw(rt, "forced") == 0,
			highest: make([]atomic.Uint64, streams), done: o, fail: make(chan error, 100)}
		plans := rapid.SliceOfN(rapid.SliceOfN(drawStep(streams, workers), 5, 40), 2, 8).Draw(rt, "plans")

		var wg, watch sync.WaitGroup
		stop := make(chan struct{})
		watch.Go(func() { c.watch(t.Context(), s, view, workers, stop) })
		for i, plan := range plans {
			wg.Go(func() {
				for _, st := range plan {
					c.play(t.Context(), replicas[i%len(replicas)], st)
				}
			})
		}
		wg.Wait()
		close(stop)
		watch.Wait()
		select {
		case err := <-c.fail:
			rt.Fatal(err)
		default:
		}
		c.atRest(rt, t, s, view, workers)
	})
	t.Logf("%d cases, %d steps: %d commits, %d repriced, %d moved, %d released, %d refused for room, %d lost a race, %d died", cases, o.steps.Load(),
		o.commits.Load(), o.repriced.Load(), o.moved.Load(), o.released.Load(), o.noRoom.Load(), o.lost.Load(), o.died.Load())
	for name, n := range map[string]*atomic.Int64{"commit": &o.commits, "price": &o.repriced, "move": &o.moved, "release": &o.released,
		"refusal": &o.noRoom, "race": &o.lost, "death": &o.died} {
		if n.Load() == 0 {
			t.Errorf("no %s in all cases: they show nothing", name)
		}
	}
}
