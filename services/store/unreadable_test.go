package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// One entry that can't be read, in a ledger or in the feed, leaves the rest of the
// view as it is; a commit there is refused and says why, until a repair.
func TestUnreadableEntry(t *testing.T) {
	s, state, _ := open(t)
	ctx, c := t.Context(), raw(t, state)
	must(t, second(s.Commit(ctx, on("a", "w1", 0, res("cpu", 10), upTo(100)...))))
	must(t, second(s.Commit(ctx, on("b", "w2", 0, res("cpu", 20), upTo(100)...))))
	must(t, c.HSet(ctx, "dionysia:ledger:w1:cpu", "ghost", "ten").Err())
	l := s.NewLedgers()
	refresh(t, l, 2)
	if got := l.Load("w1", nil)["cpu"].Reserved + l.Load("w2", nil)["cpu"].Reserved; got != 30 {
		t.Fatalf("%d are reserved in the view", got)
	}
	_, err := s.Commit(ctx, on("new", "w1", 0, res("cpu", 1), upTo(100)...))
	var no *store.NoRoomError
	if !errors.As(err, &no) || !errors.Is(err, stream.ErrNoRoom) || no.Unreadable != "ghost" || !strings.Contains(err.Error(), "w1/cpu") {
		t.Fatalf("a commit beside it: %v", err)
	}
	must(t, second(s.Commit(ctx, on("new", "w2", 0, res("cpu", 1), upTo(100)...))))
	changed, err := s.RepairLedger(ctx, "w1")
	if err != nil || len(changed) != 1 {
		t.Fatalf("repaired %q, %v", changed, err)
	}
	must(t, c.Do(ctx, "XADD", "dionysia:ledger-feed", "*", "worker", "w1", "resource", "cpu", "stream", "a", "amount", "many", "ms", "1").Err())
	must(t, second(s.Commit(ctx, on("after", "w1", 0, res("cpu", 1), upTo(100)...))))
	must(t, second(l.Refresh(ctx)))
	must(t, sameAs(l, s, t, "w1", "w2"))
}
