package store_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// A server that is killed in the midst of commits and moves comes back with
// ledgers that are exactly what is placed, and a view goes on from there.
func TestLedgersSurviveKill(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	view := s.NewLedgers()
	refresh(t, view, 0)
	var acked atomic.Int64
	var wg sync.WaitGroup
	many := make(chan struct{})
	for g := range 4 {
		wg.Go(func() {
			id, epoch := fmt.Sprintf("s%d", g), uint64(0)
			for i := 0; ; i++ {
				e, err := s.Commit(ctx, on(id, fmt.Sprintf("w%d", i%2), epoch, res(gpu0, 10, gpu0+"/memory", 10, "cpu", 10), upTo(100, 100, 100)...))
				if err != nil {
					return
				}
				epoch = e
				if s.MoveDevice(ctx, id, epoch, "cpu", res("cpu", 20), upTo(100)) != nil {
					return
				}
				if acked.Add(1) == 100 {
					close(many)
				}
			}
		})
	}
	select {
	case <-many:
	case <-time.After(60 * time.Second):
		t.Fatal("no 100 rounds in a minute")
	}
	state.Kill()
	wg.Wait()
	state.Restart()
	testkit.Eventually(t, 30*time.Second, "the store to work again", func() error { return s.Ping(ctx) })
	for i := range 2 {
		if changed, err := s.RepairLedger(ctx, fmt.Sprintf("w%d", i)); err != nil || len(changed) > 0 {
			t.Errorf("repaired %q, %v", changed, err)
		}
	}
	_, err := view.Refresh(ctx)
	must(t, err)
	must(t, sameAs(view, s, t, "w0", "w1"))
	held := 0
	for _, w := range view.Workers() {
		held += view.Load(w, nil)["cpu"].Streams
	}
	if held != 4 {
		t.Errorf("%d of 4 streams hold a CPU", held)
	}
}

// Whatever is taken out of a ledger, put in or changed by hand, a repair makes it
// what is placed, and says so; another finds nothing.
func TestRepairLedger(t *testing.T) {
	s, state, _ := open(t)
	c := raw(t, state)
	cases, harms := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		cases++
		const workers = 2
		sc := &scene{tag: fmt.Sprintf("r%d", cases), highest: make([]atomic.Uint64, 4), done: &outcomes{}, fail: make(chan error, 100)}
		for _, st := range rapid.SliceOfN(drawStep(len(sc.highest), workers), 1, 12).Draw(rt, "plan") {
			st.dies = 0
			sc.play(t.Context(), s, st)
		}
		view := s.NewLedgers()
		if _, err := view.Refresh(t.Context()); err != nil {
			rt.Fatal(err)
		}
		harmed := map[string]bool{}
		for range rapid.IntRange(0, 5).Draw(rt, "harms") {
			w, id := sc.worker(rapid.IntRange(0, workers-1).Draw(rt, "worker")), sc.stream(rapid.IntRange(0, 9).Draw(rt, "stream"))
			resource := rapid.SampledFrom([]string{"cpu", gpu0, gpu0 + "/memory", "nvenc-sessions"}).Draw(rt, "resource")
			k := "dionysia:ledger:" + w + ":" + resource
			value := rapid.SampledFrom([]string{"", "7777 7", "nonsense", "9000 1"}).Draw(rt, "value")
			was := c.HGet(t.Context(), k, id).Val()
			switch {
			case value != "":
				must(t, c.HSet(t.Context(), k, id, value).Err())
				must(t, c.SAdd(t.Context(), "dionysia:ledger-resources:"+w, resource).Err())
			case was == "":
				continue
			default:
				must(t, c.HDel(t.Context(), k, id).Err())
			}
			harmed[w+"/"+resource+"/"+id] = true
		}
		harms += len(harmed)
		said := 0
		for i := range workers {
			changed, err := s.RepairLedger(t.Context(), sc.worker(i))
			if err != nil {
				rt.Fatal(err)
			}
			said += len(changed)
			if again, err := s.RepairLedger(t.Context(), sc.worker(i)); err != nil || len(again) > 0 {
				rt.Fatalf("a second repair changed %q, %v", again, err)
			}
		}
		// One harm may have undone another.
		if said > len(harmed) {
			rt.Fatalf("%d repairs of %d harms", said, len(harmed))
		}
		sc.atRest(rt, t, s, view, workers)
	})
	if harms == 0 {
		t.Fatal("no case did any harm")
	}
	t.Logf("%d cases, %d harms", cases, harms)
}

// What each kind of leak is, and what is said of it.
func TestRepairSays(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	c := raw(t, state)
	const cpuKey = "dionysia:ledger:w1:cpu"
	must(t, second(s.Commit(ctx, on("a", "w1", 0, res(gpu0, 40, "cpu", 10), upTo(100, 50)...))))
	must(t, second(s.Commit(ctx, on("ended", "w1", 0, res("cpu", 5), upTo(50)...))))
	must(t, s.Release(ctx, "ended", 1))
	must(t, second(s.Commit(ctx, on("elsewhere", "w2", 0, res("cpu", 6), upTo(50)...))))
	must(t, second(s.Commit(ctx, on("ending", "w1", 0, res("cpu", 7), upTo(50)...))))
	must(t, s.SetEnding(ctx, "ending", 1))
	whole := map[string]int64{gpu0 + "/a": 40, "cpu/a": 10, "cpu/ending": 7}
	holds(t, s, "w1", whole)
	for name, harm := range map[string]struct {
		do   func() error
		want []string
	}{
		"none":         {func() error { return nil }, nil},
		"no placement": {func() error { return c.HSet(ctx, cpuKey, "x", "3 1").Err() }, []string{"w1/cpu: 3 px/s returned that x held without a placement"}},
		"ended":        {func() error { return c.HSet(ctx, cpuKey, "ended", "5 1").Err() }, []string{"w1/cpu: 5 px/s returned that ended held without a placement"}},
		"elsewhere":    {func() error { return c.HSet(ctx, cpuKey, "elsewhere", "6 1").Err() }, []string{"w1/cpu: 6 px/s returned that elsewhere held without a placement"}},
		"amount":       {func() error { return c.HSet(ctx, cpuKey, "a", "11 1").Err() }, []string{"w1/cpu: a, placed here, held 11 px/s and has its 10 again"}},
		"lost":         {func() error { return c.HDel(ctx, cpuKey, "ending").Err() }, []string{"w1/cpu: ending, placed here, held 0 px/s and has its 7 again"}},
		"unreadable":   {func() error { return c.HSet(ctx, cpuKey, "a", "ten").Err() }, []string{"w1/cpu: the entry of a could not be read; it holds 10 px/s now"}},
		"ledger lost":  {func() error { return c.Del(ctx, "dionysia:ledger:w1:"+gpu0).Err() }, []string{"w1/gpu-aaaa: a, placed here, held 0 px/s and has its 40 again"}},
		"index lost":   {func() error { return c.Del(ctx, "dionysia:worker-streams:w1", "dionysia:active").Err() }, nil},
		"above the limit": {func() error {
			must(t, c.Del(ctx, cpuKey).Err())
			must(t, second(s.Commit(ctx, on("late", "w1", 0, res("cpu", 50), upTo(50)...))))
			whole["cpu/late"] = 50
			return nil
		}, []string{"w1/cpu: a, placed here, held 0 px/s and has its 10 again", "w1/cpu: ending, placed here, held 0 px/s and has its 7 again"}},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, harm.do())
			got, err := s.RepairLedger(ctx, "w1")
			must(t, err)
			slices.Sort(got)
			if !slices.Equal(got, harm.want) {
				t.Fatalf("got %q, want %q", got, harm.want)
			}
			holds(t, s, "w1", whole)
			if got, err := s.RepairLedger(ctx, "w2"); err != nil || len(got) > 0 {
				t.Fatalf("repaired %q at the other worker, %v", got, err)
			}
			list, err := s.Placements(ctx, "w1")
			must(t, err)
			active, err := s.ActiveStreams(ctx)
			must(t, err)
			want := 2 + len(whole) - 3 // a and ending, and late
			if len(active) != want+1 || len(list) != want {
				t.Fatalf("placed are %d, active %v", len(list), active)
			}
		})
	}
}
