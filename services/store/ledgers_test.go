package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// raw is a plain client of a server, to do what Dionysia would not.
func raw(t testing.TB, r *testkit.Redis) *redis.Client {
	t.Helper()
	opt, err := redis.ParseURL(r.URL(0))
	must(t, err)
	c := redis.NewClient(opt)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func refresh(t testing.TB, l *store.Ledgers, want int) {
	t.Helper()
	n, err := l.Refresh(t.Context())
	must(t, err)
	if n != want {
		t.Fatalf("%d changes, want %d", n, want)
	}
}

func changed(l *store.Ledgers, want ...string) error {
	got := l.Changed()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("changed %v, want %v", got, want)
	}
	return nil
}

// sameAs holds the view against the ledgers themselves, at rest.
func sameAs(l *store.Ledgers, s *store.Store, t testing.TB, workers ...string) error {
	for _, w := range workers {
		ledger, err := s.Ledger(t.Context(), w)
		if err != nil {
			return err
		}
		load := l.Load(w, nil)
		if len(load) != len(ledger) {
			return fmt.Errorf("%s: the view has %v, the ledgers %v", w, load, ledger)
		}
		streams := map[string]bool{}
		for resource, held := range ledger {
			if load[resource].Reserved != total(held) || load[resource].Streams != len(held) {
				return fmt.Errorf("%s/%s: the view has %+v, the ledger %v", w, resource, load[resource], held)
			}
			for id := range held {
				streams[id] = true
			}
		}
		for id := range streams {
			reserved, _ := l.Held(w, id)
			for _, r := range reserved {
				if ledger[r.Resource][id].Amount != r.Amount {
					return fmt.Errorf("%s: the view has %v for %s, the ledgers %v", w, reserved, id, ledger)
				}
			}
		}
		differ, err := l.Audit(t.Context(), w)
		if err != nil || len(differ) > 0 {
			return fmt.Errorf("audit of %s: %v, %v", w, differ, err)
		}
	}
	return nil
}

func TestLedgersFollow(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	l := s.NewLedgers()
	refresh(t, l, 0)
	refresh(t, l, 0)
	e, err := s.Commit(ctx, on("a", "w1", 0, res(gpu0, 40, "cpu", 10), upTo(100, 50)...))
	must(t, err)
	must(t, second(s.Commit(ctx, on("b", "w1", 0, res("cpu", 30), upTo(50)...))))
	must(t, second(s.Commit(ctx, on("c", "w2", 0, res("cpu", 30), upTo(50)...))))
	refresh(t, l, 4)
	must(t, changed(l, "w1", "w2"))
	must(t, changed(l))
	into := map[string]placement.Load{"rubbish": {}}
	if got := l.Load("w1", into); len(got) != 2 || into["cpu"] != (placement.Load{Reserved: 40, Young: 40, Streams: 2}) || into[gpu0] != (placement.Load{Reserved: 40, Young: 40, Streams: 1}) {
		t.Fatalf("got %+v", got)
	}
	if got := l.Load("nobody", into); len(got) != 0 {
		t.Fatalf("got %+v", got)
	}
	if r, young := l.Held("w1", "a"); !young || !slices.Equal(r, res("cpu", 10, gpu0, 40)) {
		t.Fatalf("held %v, young %v", r, young)
	}
	must(t, s.Reprice(ctx, "a", e, res(gpu0, 20, "cpu", 10)))
	refresh(t, l, 1) // what does not change is not in the feed
	must(t, s.MoveDevice(ctx, "a", e, "cpu", res("cpu", 20), upTo(50)))
	refresh(t, l, 2)
	must(t, changed(l, "w1"))
	must(t, sameAs(l, s, t, "w1", "w2"))
	must(t, s.Release(ctx, "c", 1))
	must(t, s.Release(ctx, "c", 1))
	refresh(t, l, 1)
	if got := l.Workers(); !slices.Equal(got, []string{"w1"}) {
		t.Fatalf("workers %v", got)
	}
	another := s.NewLedgers()
	refresh(t, another, 2)
	must(t, sameAs(another, s, t, "w1", "w2"))

	// Another start of the server: everything is read again.
	state.Kill()
	state.Restart()
	testkit.Eventually(t, 30*time.Second, "the store to work again", func() error { return s.Ping(ctx) })
	must(t, changed(l, "w2"))
	refresh(t, l, 2)
	must(t, changed(l, "w1"))
	must(t, sameAs(l, s, t, "w1", "w2"))
}

// A reservation is young for stream.RampHold, by Redis' clock; lowering it does
// not make it young again, raising it does.
func TestLedgersAge(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	c := raw(t, state)
	e, err := s.Commit(ctx, on("a", "w1", 0, res("cpu", 30), upTo(100)...))
	must(t, err)
	must(t, second(s.Commit(ctx, on("b", "w1", 0, res("cpu", 9), upTo(100)...))))
	now, err := s.Time(ctx)
	must(t, err)
	const soon = 2 * time.Second
	must(t, c.HSet(ctx, "dionysia:ledger:w1:cpu", "a", fmt.Sprintf("30 %d", now.Add(soon-stream.RampHold).UnixMilli()),
		"b", fmt.Sprintf("9 %d", now.Add(soon-stream.RampHold).UnixMilli())).Err())
	l := s.NewLedgers()
	refresh(t, l, 2)
	must(t, s.Reprice(ctx, "b", 1, res("cpu", 10)))
	refresh(t, l, 1)
	must(t, changed(l, "w1"))
	if got := l.Load("w1", nil)["cpu"]; got != (placement.Load{Reserved: 40, Young: 40, Streams: 2}) {
		t.Fatalf("got %+v", got)
	}
	old := placement.Load{Reserved: 40, Young: 10, Streams: 2}
	testkit.Eventually(t, 30*time.Second, "the reservation to grow old", func() error {
		refresh(t, l, 0)
		if got := l.Load("w1", nil)["cpu"]; got != old {
			return fmt.Errorf("got %+v", got)
		}
		return nil
	})
	must(t, changed(l, "w1"))
	if _, young := l.Held("w1", "a"); young {
		t.Fatal("a is young still")
	}
	// The commit counts alike: 60 used hold the 30, the 10 are to come.
	try := func(amount int) error {
		_, err := s.Commit(ctx, on("c", "w1", 0, res("cpu", amount), measured(100, 60)))
		return err
	}
	wantErr(t, try(31), stream.ErrNoRoom)
	must(t, try(30))
	must(t, s.Release(ctx, "c", 1))
	must(t, s.DeletePlacement(ctx, "c", 1))
	must(t, s.Reprice(ctx, "a", e, res("cpu", 25)))
	refresh(t, l, 3)
	if got := l.Load("w1", nil)["cpu"]; got != (placement.Load{Reserved: 35, Young: 10, Streams: 2}) {
		t.Fatalf("after lowering: %+v", got)
	}
	must(t, s.Reprice(ctx, "a", e, res("cpu", 26)))
	refresh(t, l, 1)
	if got := l.Load("w1", nil)["cpu"]; got != (placement.Load{Reserved: 36, Young: 36, Streams: 2}) {
		t.Fatalf("after raising: %+v", got)
	}
	wantErr(t, try(30), stream.ErrNoRoom)
	must(t, try(4))
	fresh := s.NewLedgers()
	refresh(t, fresh, 3)
	must(t, sameAs(fresh, s, t, "w1"))
}

// A feed that is trimmed, lost, or of another database makes the view read
// everything again; a ledger changed by hand shows in an audit.
func TestLedgersGaps(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	c := raw(t, state)
	l := s.NewLedgers()
	e := uint64(0)
	commit := func(amount int) {
		t.Helper()
		var err error
		e, err = s.Commit(ctx, on("a", "w1", e, res("cpu", amount), upTo(100)...))
		must(t, err)
	}
	commit(1)
	refresh(t, l, 1)
	for name, harm := range map[string]func(){
		"trimmed": func() {
			commit(2)
			commit(3)
			must(t, c.XTrimMaxLen(ctx, "dionysia:ledger-feed", 1).Err())
		},
		"lost": func() {
			commit(4)
			must(t, c.Del(ctx, "dionysia:ledger-feed").Err())
		},
		"lost, and written to since": func() {
			must(t, c.Del(ctx, "dionysia:ledger-feed").Err())
			commit(5)
		},
		"another database": func() {
			must(t, c.Set(ctx, "dionysia:generation", "other", 0).Err())
			must(t, c.HSet(ctx, "dionysia:ledger:w1:cpu", "a", fmt.Sprintf("6 %d", time.Now().UnixMilli())).Err())
		},
		"emptied": func() {
			must(t, c.FlushAll(ctx).Err())
			e = 0
			commit(7)
		},
	} {
		t.Run(name, func(t *testing.T) {
			harm()
			refresh(t, l, 1)
			must(t, sameAs(l, s, t, "w1"))
			refresh(t, l, 0)
			commit(8)
			refresh(t, l, 1)
			must(t, sameAs(l, s, t, "w1"))
		})
	}
	t.Run("restored from a backup", func(t *testing.T) {
		commit(9)
		keys, err := c.Keys(ctx, "dionysia:*").Result()
		must(t, err)
		backup := map[string]string{}
		for _, k := range keys {
			backup[k], err = c.Dump(ctx, k).Result()
			must(t, err)
		}
		commit(10)
		commit(11)
		refresh(t, l, 3)
		for k, v := range backup {
			must(t, c.RestoreReplace(ctx, k, 0, v).Err())
		}
		refresh(t, l, 1)
		if got := l.Load("w1", nil)["cpu"].Reserved; got != 9 {
			t.Fatalf("%d reserved", got)
		}
		must(t, sameAs(l, s, t, "w1"))
	})
	t.Run("by hand", func(t *testing.T) {
		must(t, c.HSet(ctx, "dionysia:ledger:w1:cpu", "a", fmt.Sprintf("12 %d", time.Now().UnixMilli()), "x", "1 1").Err())
		must(t, c.SAdd(ctx, "dionysia:ledger-resources:w1", gpu0).Err())
		must(t, c.HSet(ctx, "dionysia:ledger:w1:"+gpu0, "y", "2 2").Err())
		refresh(t, l, 0)
		differ, err := l.Audit(ctx, "w1")
		must(t, err)
		if len(differ) != 3 {
			t.Fatalf("got %q", differ)
		}
		must(t, sameAs(l, s, t, "w1"))
		if got := l.Load("w1", nil); got["cpu"].Reserved != 13 || got[gpu0].Reserved != 2 {
			t.Fatalf("got %+v", got)
		}
		must(t, c.Del(ctx, "dionysia:ledger:w1:"+gpu0).Err())
		if differ, err := l.Audit(ctx, "w1"); err != nil || len(differ) != 1 {
			t.Fatalf("got %q, %v", differ, err)
		}
		must(t, sameAs(l, s, t, "w1"))
	})
}
