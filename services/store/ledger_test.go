package store_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

const gpu0, gpu1 = "gpu-aaaa", "gpu-bbbb"

// res makes reservations of resource, amount, resource, amount, …
func res(v ...any) (list []stream.Reservation) {
	for i := 0; i < len(v); i += 2 {
		list = append(list, stream.Reservation{Resource: v[i].(string), Amount: int64(v[i+1].(int))})
	}
	return list
}

// upTo makes limits without a measurement.
func upTo(v ...int64) (list []capacity.Limit) {
	for _, l := range v {
		list = append(list, capacity.Limit{Limit: l})
	}
	return list
}

func measured(limit, used int64) capacity.Limit { return capacity.Limit{Limit: limit, Used: &used} }

func on(id, worker string, expect uint64, reserved []stream.Reservation, limits ...capacity.Limit) store.Proposal {
	return store.Proposal{Limits: limits, ExpectEpoch: expect, Placement: stream.Placement{Stream: id, Broadcast: "b", Worker: worker,
		Device: reserved[0].Resource, Boot: "boot", Reserved: reserved, Window: 60, HoldBack: 12}}
}

// holds checks all that is held at a worker: "resource/stream" → amount.
func holds(t *testing.T, s *store.Store, worker string, want map[string]int64) {
	t.Helper()
	ledger, err := s.Ledger(t.Context(), worker)
	must(t, err)
	got := map[string]int64{}
	for resource, streams := range ledger {
		for id, h := range streams {
			got[resource+"/"+id] = h.Amount
			if age := time.Since(h.At); age < -time.Second || age > time.Minute {
				t.Fatalf("%s/%s was reserved at %v", resource, id, h.At)
			}
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%s holds %v, want %v", worker, got, want)
	}
	for k, v := range want {
		if got[k] != v {
			t.Fatalf("%s holds %v, want %v", worker, got, want)
		}
	}
}

// A commit on several resources makes all of its reservations or none, and says
// which resource refused it.
func TestCommitSeveralResources(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	all := func(px, mem, sessions, cpu int) []stream.Reservation {
		return res(gpu0, px, gpu0+"/memory", mem, "nvenc-sessions", sessions, "cpu", cpu)
	}
	limits := upTo(100, 1000, 3, 50)
	e1, err := s.Commit(ctx, on("a", "w1", 0, all(40, 300, 2, 10), limits...))
	must(t, err)
	mine := map[string]int64{gpu0 + "/a": 40, gpu0 + "/memory/a": 300, "nvenc-sessions/a": 2, "cpu/a": 10}
	holds(t, s, "w1", mine)
	for name, c := range map[string]struct {
		reserved []stream.Reservation
		want     string
	}{
		"device":   {all(61, 1, 1, 1), "w1/gpu-aaaa: needs 61 px/s; of 100 px/s, 40 are reserved by 1 other streams"},
		"memory":   {all(1, 701, 1, 1), "w1/gpu-aaaa/memory: needs 701 bytes; of 1000 bytes, 300 are reserved"},
		"sessions": {all(1, 1, 2, 1), "w1/nvenc-sessions: needs 2 sessions; of 3 sessions, 2 are reserved"},
		"cpu":      {all(1, 1, 1, 41), "w1/cpu: needs 41 px/s; of 50 px/s, 10 are reserved"},
	} {
		_, err := s.Commit(ctx, on("b", "w1", 0, c.reserved, limits...))
		var no *store.NoRoomError
		if !errors.Is(err, stream.ErrNoRoom) || !errors.As(err, &no) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		holds(t, s, "w1", mine)
	}
	must(t, second(s.Commit(ctx, on("b", "w1", 0, all(60, 700, 1, 40), limits...))))
	must(t, s.Release(ctx, "b", 1))

	// To another device of another worker: all four are returned.
	e2, err := s.Commit(ctx, on("a", "w2", e1, res("cpu", 7), upTo(7)...))
	must(t, err)
	holds(t, s, "w1", nil)
	holds(t, s, "w2", map[string]int64{"cpu/a": 7})
	// Back, in place, to fewer.
	e3, err := s.Commit(ctx, on("a", "w2", e2, res(gpu1, 5, "cpu", 1), upTo(5, 7)...))
	must(t, err)
	holds(t, s, "w2", map[string]int64{gpu1 + "/a": 5, "cpu/a": 1})
	must(t, s.Release(ctx, "a", e3))
	holds(t, s, "w2", nil)

	for name, p := range map[string]store.Proposal{
		"nothing":             {Placement: stream.Placement{Stream: "c", Worker: "w1", Device: "cpu"}},
		"another device":      {Limits: upTo(9), Placement: stream.Placement{Stream: "c", Worker: "w1", Device: gpu0, Reserved: res("cpu", 1)}},
		"no limits":           {Placement: stream.Placement{Stream: "c", Worker: "w1", Device: "cpu", Reserved: res("cpu", 1)}},
		"too few limits":      on("c", "w1", 0, res("cpu", 1, gpu0, 1), upTo(9)...),
		"twice":               on("c", "w1", 0, res("cpu", 1, "cpu", 1), upTo(9, 9)...),
		"zero":                on("c", "w1", 0, res("cpu", 1, gpu0, 0), upTo(9, 9)...),
		"negative":            on("c", "w1", 0, res("cpu", -1), upTo(9)...),
		"more than Lua holds": on("c", "w1", 0, res("cpu", 1<<53), upTo(math.MaxInt64)...),
	} {
		if _, err := s.Commit(ctx, p); !errors.Is(err, stream.ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	must(t, second(s.Commit(ctx, on("c", "w1", 0, res("cpu", 1<<53-1), upTo(math.MaxInt64)...))))
	holds(t, s, "w1", map[string]int64{"cpu/c": 1<<53 - 1})
}

// What is measured counts together with what was reserved too recently to show.
func TestCommitMeasured(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	try := func(amount int, l capacity.Limit) error {
		e, err := s.Commit(ctx, on("b", "w1", 0, res("cpu", amount), l))
		if err == nil {
			must(t, s.Release(ctx, "b", e))
			must(t, s.DeletePlacement(ctx, "b", e))
		}
		return err
	}
	must(t, try(40, measured(100, 60)))
	wantErr(t, try(41, measured(100, 60)), stream.ErrNoRoom) // foreign use alone
	must(t, second(s.Commit(ctx, on("a", "w1", 0, res("cpu", 30), upTo(100)...))))
	// a's 30 are young: 60 used and 30 more to come.
	must(t, try(10, measured(100, 60)))
	err := try(11, measured(100, 60))
	if !errors.Is(err, stream.ErrNoRoom) || !strings.Contains(err.Error(), "60 are used and 30 reserved too recently") {
		t.Fatalf("got %v", err)
	}
	must(t, try(70, capacity.Limit{Limit: 100}))
	wantErr(t, try(71, measured(100, 0)), stream.ErrNoRoom)
}

// The run moves to another device of its worker; the epoch stays.
func TestMoveDevice(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	e, err := s.Commit(ctx, on("a", "w1", 0, res(gpu0, 40, "nvenc-sessions", 2, "cpu", 10), upTo(100, 3, 50)...))
	must(t, err)
	must(t, second(s.Commit(ctx, on("b", "w1", 0, res("cpu", 30), upTo(50)...))))
	before := map[string]int64{gpu0 + "/a": 40, "nvenc-sessions/a": 2, "cpu/a": 10, "cpu/b": 30}
	wantErr(t, s.MoveDevice(ctx, "a", e, "cpu", res("cpu", 21), upTo(50)), stream.ErrNoRoom)
	wantErr(t, s.MoveDevice(ctx, "a", e+1, "cpu", res("cpu", 20), upTo(50)), stream.ErrFenced)
	wantErr(t, s.MoveDevice(ctx, "x", 1, "cpu", res("cpu", 20), upTo(50)), stream.ErrNotFound)
	wantErr(t, s.MoveDevice(ctx, "a", e, "cpu", res(gpu1, 20), upTo(50)), stream.ErrInvalid)
	wantErr(t, s.MoveDevice(ctx, "a", e, "cpu", res("cpu", 20), nil), stream.ErrInvalid)
	holds(t, s, "w1", before)
	must(t, s.MoveDevice(ctx, "a", e, "cpu", res("cpu", 20), upTo(50)))
	holds(t, s, "w1", map[string]int64{"cpu/a": 20, "cpu/b": 30})
	p, err := s.Placement(ctx, "a")
	must(t, err)
	if p.Device != "cpu" || p.Epoch != e || p.Price != 20 || len(p.Reserved) != 1 || p.Reserved[0] != res("cpu", 20)[0] {
		t.Fatalf("after the move: %+v", p)
	}
	wantErr(t, s.Reprice(ctx, "a", e, res(gpu0, 1)), stream.ErrConflict)
	wantErr(t, s.Reprice(ctx, "a", e, res("cpu", 21)), stream.ErrNoRoom)
	must(t, s.Reprice(ctx, "a", e, res("cpu", 5)))
	must(t, s.Reprice(ctx, "a", e, res("cpu", 20)))

	// Recorded as it is, above the limit.
	must(t, s.RecordDevice(ctx, "a", e, gpu1, res(gpu1, 200, "cpu", 60), upTo(100, 50)))
	holds(t, s, "w1", map[string]int64{gpu1 + "/a": 200, "cpu/a": 60, "cpu/b": 30})
	wantErr(t, s.Reprice(ctx, "a", e, res(gpu1, 201, "cpu", 60)), stream.ErrNoRoom)
	must(t, s.Reprice(ctx, "a", e, res(gpu1, 90, "cpu", 60)))
	must(t, s.Reprice(ctx, "a", e, res(gpu1, 100))) // the CPU is returned
	holds(t, s, "w1", map[string]int64{gpu1 + "/a": 100, "cpu/b": 30})
	wantErr(t, s.Reprice(ctx, "a", e, res(gpu1, 100, "cpu", 1)), stream.ErrConflict)
	must(t, s.Release(ctx, "a", e))
	holds(t, s, "w1", map[string]int64{"cpu/b": 30})
	wantErr(t, s.MoveDevice(ctx, "a", e, "cpu", res("cpu", 1), upTo(50)), stream.ErrConflict)
	wantErr(t, s.RecordDevice(ctx, "a", e, "cpu", res("cpu", 1), upTo(50)), stream.ErrConflict)
	wantErr(t, s.Reprice(ctx, "a", e, res(gpu1, 1)), stream.ErrConflict)
}

func total(m map[string]store.Held) (sum int64) {
	for _, h := range m {
		sum += h.Amount
	}
	return sum
}
