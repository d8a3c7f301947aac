package store_test

import (
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

const segLen = 2 * time.Second

func seg(number, epoch, local uint64) stream.Segment {
	return stream.Segment{Number: number, Run: stream.RunID{Epoch: epoch, Run: 1}, Local: local,
		ProgramDateTime: time.Unix(1_700_000_000+int64(number)*2, 0).UTC(), Start: time.Duration(number) * segLen, Duration: segLen,
		Parts: map[string]stream.Part{"720p": {Time: 1<<63 + number, Duration: 180000, Size: 1000}}}
}

func run(epoch uint64, broadcast string) stream.Run {
	return stream.Run{ID: stream.RunID{Epoch: epoch, Run: 1}, Broadcast: broadcast, Origin: fmt.Sprintf("w%d", epoch),
		Tracks: []stream.Track{{Name: "720p", Kind: stream.Video, Codec: "avc1.64001f", FPS: stream.Rate{Num: 30000, Den: 1001}}}}
}

func numbers(t *stream.Tail) (list []uint64) {
	for _, s := range t.Segments {
		list = append(list, s.Number)
	}
	return list
}

func TestTail(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	e1, err := s.Commit(ctx, proposal("demo", "w1", 1, 100, 0))
	must(t, err)
	must(t, s.SaveRun(ctx, "demo", run(e1, "b1")))
	add := func(g stream.Segment, broadcast string) error {
		return s.AppendSegment(ctx, "demo", broadcast, g, 60*time.Second)
	}
	for n := uint64(1); n <= 40; n++ {
		must(t, add(seg(n, e1, n), "b1"))
	}
	must(t, add(seg(40, e1, 40), "b1")) // the answer was lost
	wantErr(t, add(seg(40, e1, 41), "b1"), stream.ErrConflict)
	wantErr(t, add(seg(39, e1, 39), "b1"), stream.ErrConflict)
	tail, err := s.LoadTail(ctx, "demo")
	must(t, err)
	// What ends 60 s or more before the end of the newest has left.
	if got := numbers(&tail); len(got) != 30 || got[0] != 11 || tail.Last != 40 || tail.Broadcast != "b1" || tail.Ended {
		t.Fatalf("tail %v, last %d, %q, ended %v", got, tail.Last, tail.Broadcast, tail.Ended)
	}
	if !reflect.DeepEqual(tail.Segments[29], seg(40, e1, 40)) || !reflect.DeepEqual(tail.Runs["e1r1"], run(e1, "b1")) {
		t.Fatalf("got back %+v and %+v", tail.Segments[29], tail.Runs)
	}

	// A successor: the former can list nothing more, and its run leaves with its
	// last segment.
	e2, err := s.Commit(ctx, proposal("demo", "w2", 1, 100, e1))
	must(t, err)
	wantErr(t, add(seg(41, e1, 41), "b1"), stream.ErrFenced)
	wantErr(t, s.SaveRun(ctx, "demo", run(e1, "b1")), stream.ErrFenced)
	wantErr(t, s.EndTail(ctx, "demo", e1), stream.ErrFenced)
	must(t, s.SaveRun(ctx, "demo", run(e2, "b1")))
	for n := uint64(41); n <= 80; n++ {
		must(t, add(seg(n, e2, n-40), "b1"))
		tail, err := s.LoadTail(ctx, "demo")
		must(t, err)
		for _, g := range tail.Segments {
			if _, ok := tail.Runs[g.Run.String()]; !ok {
				t.Fatalf("at %d, segment %d has lost its run %s", n, g.Number, g.Run)
			}
		}
		if _, ok := tail.Runs["e1r1"]; ok != (tail.Segments[0].Run.Epoch == e1) {
			t.Fatalf("at %d, runs %v with the list from %d", n, tail.Runs, tail.Segments[0].Number)
		}
	}

	// A hole: nothing older is listed.
	must(t, add(seg(100, e2, 60), "b1"))
	tail, err = s.LoadTail(ctx, "demo")
	must(t, err)
	if got := numbers(&tail); len(got) != 1 || got[0] != 100 || len(tail.Runs) != 1 {
		t.Fatalf("after a hole: %v, %v", got, tail.Runs)
	}

	must(t, s.EndTail(ctx, "demo", e2))
	must(t, s.EndTail(ctx, "demo", e2))
	wantErr(t, add(seg(101, e2, 61), "b1"), stream.ErrConflict)
	if tail, err = s.LoadTail(ctx, "demo"); err != nil || !tail.Ended || tail.Last != 100 {
		t.Fatalf("ended: %+v, %v", tail, err)
	}

	// The next broadcast starts an empty list; the numbers go on.
	e3, err := s.Commit(ctx, proposal("demo", "w1", 1, 100, e2))
	must(t, err)
	must(t, s.SaveRun(ctx, "demo", run(e3, "b2")))
	if tail, err = s.LoadTail(ctx, "demo"); err != nil || tail.Ended || tail.Broadcast != "b2" || tail.Last != 100 || len(tail.Segments) != 0 || len(tail.Runs) != 1 {
		t.Fatalf("next broadcast: %+v, %v", tail, err)
	}
	wantErr(t, add(seg(100, e3, 1), "b2"), stream.ErrConflict)
	must(t, add(seg(101, e3, 1), "b2"))
}

func TestEndTailWithoutTail(t *testing.T) {
	s, _, _ := open(t)
	must(t, s.EndTail(t.Context(), "demo", 1))
	wantErr(t, second(s.LoadTail(t.Context(), "demo")), stream.ErrNotFound)
}

// Live loses everything: the fence holds by the epoch in state, the writer goes
// on with its numbers, and a successor starts above any that was listed.
func TestTailLostByLive(t *testing.T) {
	s, state, live := open(t)
	ctx := t.Context()
	e1, err := s.Commit(ctx, proposal("demo", "w1", 1, 100, 0))
	must(t, err)
	var n uint64
	for n = 1; n <= 500; n++ {
		must(t, s.AppendSegment(ctx, "demo", "b1", seg(n, e1, n), time.Minute))
	}
	flush(t, live)
	tail, err := s.LoadTail(ctx, "demo")
	must(t, err)
	if tail.Last < 500 || len(tail.Segments) != 0 {
		t.Fatalf("a successor would start at %d with %d segments", tail.Last+1, len(tail.Segments))
	}
	other := openURL(t, state.URL(0), live.URL(0))
	wantErr(t, other.AppendSegment(ctx, "demo", "b1", seg(100, e1, 100), time.Minute), stream.ErrConflict)
	must(t, s.AppendSegment(ctx, "demo", "b1", seg(501, e1, 501), time.Minute))
	flush(t, live)
	e2, err := s.Commit(ctx, proposal("demo", "w2", 1, 100, e1))
	must(t, err)
	flush(t, live) // the fence too
	wantErr(t, s.AppendSegment(ctx, "demo", "b1", seg(502, e1, 502), time.Minute), stream.ErrFenced)
	must(t, s.AppendSegment(ctx, "demo", "b1", seg(tail.Last+1, e2, 1), time.Minute))
}

// With state frozen or gone, live alone takes segments and fences.
func TestTailWithoutState(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	e1, err := s.Commit(ctx, proposal("demo", "w1", 1, 100, 0))
	must(t, err)
	e2, err := s.Commit(ctx, proposal("demo", "w1", 1, 100, e1))
	must(t, err)
	must(t, syscall.Kill(state.PID(), syscall.SIGSTOP))
	must(t, s.AppendSegment(ctx, "demo", "b1", seg(1, e2, 1), time.Minute))
	state.Kill()
	must(t, s.AppendSegment(ctx, "demo", "b1", seg(2, e2, 2), time.Minute))
	wantErr(t, s.AppendSegment(ctx, "demo", "b1", seg(3, e1, 3), time.Minute), stream.ErrFenced)
	if tail, err := s.LoadTail(ctx, "demo"); err != nil || tail.Last != 2 {
		t.Fatalf("tail %+v, %v", tail, err)
	}
}

func flush(t testing.TB, r *testkit.Redis) {
	t.Helper()
	host, port, _ := strings.Cut(r.Addr, ":")
	cmd := exec.Command("redis-cli", "-h", host, "-p", port, "--no-auth-warning", "FLUSHALL")
	cmd.Env = append(cmd.Environ(), "REDISCLI_AUTH="+r.Password)
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "OK" {
		t.Fatalf("flushing: %v: %s", err, out)
	}
}

// Whatever writers do, in whatever order, with takeovers, new broadcasts, holes,
// repetitions and a live that forgets: a number is accepted once, numbers rise,
// and the list is contiguous up to the last.
func TestTailNumbersRise(t *testing.T) {
	s, _, live := open(t)
	rounds := 0
	rapid.Check(t, func(rt *rapid.T) {
		rounds++
		id := fmt.Sprintf("s%d", rounds)
		ctx := t.Context()
		var epochs []uint64
		var last, epoch uint64
		broadcast := 1
		listed := map[uint64]string{}
		forgotten := false // live has nothing of the tail
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"append", "append", "append", "append", "commit", "broadcast", "end", "forget"}).Draw(rt, "step") {
			case "commit":
				e, err := s.Commit(ctx, proposal(id, "w", 1, 1000, epoch))
				if err != nil {
					rt.Fatal(err)
				}
				if e <= epoch {
					rt.Fatalf("epoch %d after %d", e, epoch)
				}
				epoch = e
				epochs = append(epochs, e)
				if err := s.Release(ctx, id, e); err != nil { // keeps the ledger small
					rt.Fatal(err)
				}
			case "broadcast":
				broadcast++
			case "end":
				if err := s.EndTail(ctx, id, epoch); err != nil && !errors.Is(err, stream.ErrFenced) {
					rt.Fatal(err)
				}
			case "forget":
				if rapid.IntRange(0, 3).Draw(rt, "really") == 0 {
					flush(t, live)
					forgotten = true
				}
			case "append":
				if epoch == 0 {
					continue
				}
				e := rapid.SampledFrom(epochs).Draw(rt, "epoch")
				tail, err := s.LoadTail(ctx, id)
				if err != nil && !errors.Is(err, stream.ErrNotFound) {
					rt.Fatal(err)
				}
				if tail.Last < last {
					rt.Fatalf("the tail says %d, %d was listed", tail.Last, last)
				}
				off := rapid.SampledFrom([]int{1, 1, 1, 1, 0, -1, 2, 70, 200}).Draw(rt, "off")
				n := uint64(max(1, int64(tail.Last)+int64(off)))
				if forgotten && off < 1 {
					n = last + 1 // nobody can refuse what is below but the writer, who knows the tail
				}
				g := seg(n, e, rapid.Uint64Range(1, 3).Draw(rt, "local"))
				b := fmt.Sprint(broadcast)
				what := fmt.Sprint(g.Run, g.Local, b)
				err = s.AppendSegment(ctx, id, b, g, time.Minute)
				switch {
				case err == nil && e < epoch:
					rt.Fatalf("epoch %d listed %d after %d was committed", e, n, epoch)
				case err == nil && n <= last:
					if n != last || listed[n] != what {
						rt.Fatalf("%d was listed as %q and again as %q; the last is %d", n, listed[n], what, last)
					}
				case err == nil:
					last, listed[n], forgotten = n, what, false
				case !errors.Is(err, stream.ErrFenced) && !errors.Is(err, stream.ErrConflict):
					rt.Fatal(err)
				}
			}
		}
		tail, err := s.LoadTail(ctx, id)
		if errors.Is(err, stream.ErrNotFound) {
			return
		}
		if err != nil {
			rt.Fatal(err)
		}
		for i, g := range tail.Segments {
			if want := tail.Last - uint64(len(tail.Segments)-1-i); g.Number != want {
				rt.Fatalf("the list is not contiguous up to %d: %v", tail.Last, numbers(&tail))
			}
		}
	})
}
