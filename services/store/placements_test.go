package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func proposal(id, worker string, price, limit int64, expect uint64) store.Proposal {
	return store.Proposal{Limits: []capacity.Limit{{Limit: limit}}, ExpectEpoch: expect, Placement: stream.Placement{Stream: id, Broadcast: "b",
		Worker: worker, Device: "cpu", Boot: "boot", Reserved: cpu(price), Window: 60, HoldBack: 12, Source: stream.Source{Session: "s1"}}}
}

// cpu is a reservation of the CPU alone.
func cpu(price int64) []stream.Reservation {
	return []stream.Reservation{{Resource: "cpu", Amount: price}}
}

func TestPlacementLife(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	must(t, s.CreateStream(ctx, demo("demo"), "h"))
	if r, err := s.Route(ctx, "demo"); err != nil || r.Live || r.Ended || r.Epoch != 0 || r.Window != 60 {
		t.Fatalf("route %+v, %v", r, err)
	}
	e1, err := s.Commit(ctx, proposal("demo", "w1", 60, 100, 0))
	must(t, err)
	p, err := s.Placement(ctx, "demo")
	must(t, err)
	if p.Epoch != e1 || p.State != stream.PlacementPlaced || p.Price != 60 || p.Worker != "w1" || p.Source.Session != "s1" ||
		p.Window != 60 || time.Since(p.CommittedAt).Abs() > time.Minute {
		t.Fatalf("got %+v", p)
	}
	_, err = s.Commit(ctx, proposal("other", "w1", 41, 100, 0))
	wantErr(t, err, stream.ErrNoRoom)
	if !strings.Contains(err.Error(), "w1/cpu: needs 41 px/s; of 100 px/s, 60 are reserved by 1 other streams") {
		t.Fatalf("the refusal lacks the numbers: %v", err)
	}
	wantErr(t, second(s.Placement(ctx, "other")), stream.ErrNotFound)
	must(t, s.Reprice(ctx, "demo", e1, cpu(50)))
	must(t, second(s.Commit(ctx, proposal("other", "w1", 41, 100, 0))))
	wantErr(t, s.Reprice(ctx, "demo", e1, cpu(60)), stream.ErrNoRoom) // more, when there is no room
	must(t, s.Reprice(ctx, "demo", e1, cpu(59)))
	wantErr(t, s.Reprice(ctx, "demo", e1, cpu(0)), stream.ErrInvalid)
	wantErr(t, s.Reprice(ctx, "demo", e1+1, cpu(10)), stream.ErrFenced)
	must(t, s.UpdateSource(ctx, "demo", e1, stream.Source{Session: "s2"}))
	if p, _ := s.Placement(ctx, "demo"); p.Source.Session != "s2" || p.Price != 59 {
		t.Fatalf("got %+v", p)
	}

	// To another worker.
	wantErr(t, second(s.Commit(ctx, proposal("demo", "w2", 60, 100, 0))), stream.ErrConflict)
	e2, err := s.Commit(ctx, proposal("demo", "w2", 60, 100, e1))
	must(t, err)
	if e2 <= e1 {
		t.Fatalf("epoch %d after %d", e2, e1)
	}
	for what, err := range map[string]error{"source": s.UpdateSource(ctx, "demo", e1, stream.Source{}), "reprice": s.Reprice(ctx, "demo", e1, cpu(1)), "ending": s.SetEnding(ctx, "demo", e1)} {
		if !errors.Is(err, stream.ErrFenced) {
			t.Errorf("%s at the former epoch: got %v, want ErrFenced", what, err)
		}
	}
	must(t, s.Release(ctx, "demo", e1)) // the commit did that already
	ledgers := func(w1, w2 int64) {
		t.Helper()
		for w, want := range map[string]int64{"w1": w1, "w2": w2} {
			l, err := s.Ledger(ctx, w)
			must(t, err)
			if l["cpu"]["demo"].Amount != want {
				t.Fatalf("ledger of %s: %v, want demo %d", w, l, want)
			}
		}
	}
	ledgers(0, 60)
	for w, want := range map[string]string{"w1": "other", "w2": "demo"} {
		if list, err := s.Placements(ctx, w); err != nil || len(list) != 1 || list[0].Stream != want {
			t.Fatalf("placements of %s: %+v, %v", w, list, err)
		}
	}
	if r, err := s.Route(ctx, "demo"); err != nil || !r.Live || r.Epoch != e2 || r.Origin != "w2" || len(r.Origins) != 1 || r.Origins[e1] != "w1" {
		t.Fatalf("route %+v, %v", r, err)
	}

	// To its end.
	wantErr(t, s.DeletePlacement(ctx, "demo", e2), stream.ErrConflict)
	must(t, s.SetEnding(ctx, "demo", e2))
	wantErr(t, s.UpdateSource(ctx, "demo", e2, stream.Source{}), stream.ErrConflict)
	if list, _ := s.Placements(ctx, "w2"); len(list) != 1 || list[0].State != stream.PlacementEnding {
		t.Fatalf("placements %+v", list)
	}
	wantErr(t, s.Release(ctx, "demo", e2+1), stream.ErrConflict)
	for range 3 {
		must(t, s.Release(ctx, "demo", e2))
		ledgers(0, 0)
	}
	must(t, s.SetEnding(ctx, "demo", e2))
	if p, _ := s.Placement(ctx, "demo"); p.State != stream.PlacementEnded {
		t.Fatalf("ending after the end: %+v", p)
	}
	if list, _ := s.Placements(ctx, "w2"); len(list) != 0 {
		t.Fatalf("placements %+v", list)
	}
	if active, err := s.ActiveStreams(ctx); err != nil || len(active) != 1 || active[0] != "other" {
		t.Fatalf("active %v, %v", active, err)
	}
	if r, err := s.Route(ctx, "demo"); err != nil || r.Live || !r.Ended || r.Origin != "w2" || r.Epoch != e2 {
		t.Fatalf("route %+v, %v", r, err)
	}
	must(t, s.DeletePlacement(ctx, "demo", e2))
	must(t, s.Release(ctx, "demo", e2))

	// A stream of the same id goes on above the epochs of the former one.
	must(t, s.DeleteStream(ctx, "demo"))
	must(t, s.RaiseEpoch(ctx, "demo", 40))
	must(t, s.RaiseEpoch(ctx, "demo", 7))
	if e, err := s.Commit(ctx, proposal("demo", "w1", 1, 100, 0)); err != nil || e != 41 {
		t.Fatalf("epoch %d, %v; want 41", e, err)
	}
}

// The reservation that a stream moves does not count against itself.
func TestCommitInPlace(t *testing.T) {
	s, _, _ := open(t)
	e, err := s.Commit(t.Context(), proposal("demo", "w1", 100, 100, 0))
	must(t, err)
	must(t, second(s.Commit(t.Context(), proposal("demo", "w1", 90, 100, e))))
	if l, _ := s.Ledger(t.Context(), "w1"); l["cpu"]["demo"].Amount != 90 {
		t.Fatalf("ledger %v", l)
	}
}

// A commit that was acknowledged survives kill -9 of the server, with its
// reservation and epoch.
func TestCommitSurvivesKill(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	var acked []uint64
	var epoch uint64
	done := make(chan struct{})
	killed := make(chan struct{})
	go func() {
		defer close(done)
		for {
			e, err := s.Commit(ctx, proposal("demo", "w1", 10, 100, epoch))
			if err != nil {
				return
			}
			epoch = e
			acked = append(acked, e)
			if len(acked) == 100 {
				close(killed)
			}
		}
	}()
	select {
	case <-killed:
	case <-time.After(60 * time.Second):
		t.Fatal("no 100 commits in a minute")
	}
	state.Kill()
	<-done
	state.Restart()
	p, err := s.Placement(ctx, "demo")
	must(t, err)
	// One more may have happened, with its answer lost.
	if last := acked[len(acked)-1]; p.Epoch != last && p.Epoch != last+1 {
		t.Fatalf("epoch %d after the restart, %d was acknowledged", p.Epoch, last)
	}
	if l, err := s.Ledger(ctx, "w1"); err != nil || l["cpu"]["demo"].Amount != 10 {
		t.Fatalf("ledger %v, %v", l, err)
	}
}
