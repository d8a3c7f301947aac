package store_test

import (
	"testing"

	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// A commit ends the placements that go for it, or does nothing: neither when the room
// is not enough without them, nor when one is not what the proposer saw.
func TestCommitEvicts(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	epochs := map[string]uint64{}
	for _, id := range []string{"a", "b", "elsewhere"} {
		worker := "w"
		if id == "elsewhere" {
			worker = "v"
		}
		e, err := s.Commit(ctx, proposal(id, worker, 40, 100, 0))
		must(t, err)
		epochs[id] = e
	}
	commit := func(price int64, evict ...store.Evicted) error {
		p := proposal("high", "w", price, 100, 0)
		p.Evict = evict
		_, err := s.Commit(ctx, p)
		return err
	}
	gone := func(id string) store.Evicted { return store.Evicted{Stream: id, Epoch: epochs[id]} }
	expect := func(what string, want map[string]stream.PlacementState, held map[string]int64) {
		t.Helper()
		for id, state := range want {
			if p, err := s.Placement(ctx, id); err != nil || p.State != state {
				t.Errorf("%s: %s is %s, want %s (%v)", what, id, p.State, state, err)
			}
		}
		ledger, err := s.Ledger(ctx, "w")
		must(t, err)
		if len(ledger["cpu"]) != len(held) {
			t.Errorf("%s: the ledger is %+v", what, ledger)
		}
		for id, amount := range held {
			if ledger["cpu"][id].Amount != amount {
				t.Errorf("%s: %s holds %d, want %d", what, id, ledger["cpu"][id].Amount, amount)
			}
		}
	}
	placed := map[string]stream.PlacementState{"a": stream.PlacementPlaced, "b": stream.PlacementPlaced, "elsewhere": stream.PlacementPlaced}
	both := map[string]int64{"a": 40, "b": 40}

	wantErr(t, commit(70, gone("a")), stream.ErrNoRoom)
	expect("not enough", placed, both)
	wantErr(t, commit(50, gone("a"), store.Evicted{Stream: "b", Epoch: epochs["b"] + 1}), stream.ErrConflict)
	wantErr(t, commit(50, gone("a"), store.Evicted{Stream: "nobody", Epoch: 1}), stream.ErrConflict)
	expect("not what was seen", placed, both)
	must(t, commit(60, gone("a"), gone("elsewhere")))
	placed["a"], placed["elsewhere"], placed["high"] = stream.PlacementEnded, stream.PlacementEnded, stream.PlacementPlaced
	expect("evicted", placed, map[string]int64{"b": 40, "high": 60})
	active, err := s.ActiveStreams(ctx)
	must(t, err)
	if len(active) != 2 || active[0] != "b" || active[1] != "high" {
		t.Errorf("active are %v", active)
	}
	for _, w := range []string{"v", "w"} {
		if changed, err := s.RepairLedger(ctx, w); err != nil || len(changed) > 0 {
			t.Errorf("repaired at %s: %v, %v", w, changed, err)
		}
	}
	wantErr(t, commit(60, gone("a")), stream.ErrConflict) // it has ended
}
