package store_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestClaims(t *testing.T) {
	s, _, live := open(t)
	ctx := t.Context()
	a := store.Claim{Node: "n1", Conn: "a", Protocol: "rtmp", Remote: "1.2.3.4:5"}
	b := store.Claim{Node: "n2", Conn: "b", Protocol: "srt", Remote: "6.7.8.9:1"}
	must(t, s.ClaimPublish(ctx, "demo", a, false))
	must(t, s.ClaimPublish(ctx, "demo", a, false)) // one's own
	err := s.ClaimPublish(ctx, "demo", b, false)
	wantErr(t, err, stream.ErrBusy)
	if !strings.Contains(err.Error(), "rtmp from 1.2.3.4:5 at node n1") {
		t.Fatalf("the refusal does not say who: %v", err)
	}
	must(t, s.ReleaseClaim(ctx, "demo", "n1", "other")) // not theirs
	wantErr(t, s.ClaimPublish(ctx, "demo", b, false), stream.ErrBusy)
	must(t, s.ClaimPublish(ctx, "demo", b, true))
	wantErr(t, s.ClaimPublish(ctx, "demo", a, false), stream.ErrBusy)
	must(t, s.ReleaseClaim(ctx, "demo", "n2", "b"))
	must(t, s.ClaimPublish(ctx, "demo", a, false))

	// A report shows the session; when that has left, the claim is free.
	path := store.IngestPath{Stream: "demo", Session: "sess-a", Ready: true, Protocol: "rtmp", Remote: "1.2.3.4:5"}
	must(t, s.PutIngestReport(ctx, store.IngestReport{Node: "n1", Paths: []store.IngestPath{path}}))
	wantErr(t, s.ClaimPublish(ctx, "demo", b, false), stream.ErrBusy)
	must(t, s.PutIngestReport(ctx, store.IngestReport{Node: "n2"})) // another node says nothing about it
	wantErr(t, s.ClaimPublish(ctx, "demo", b, false), stream.ErrBusy)
	must(t, s.PutIngestReport(ctx, store.IngestReport{Node: "n1"}))
	must(t, s.ClaimPublish(ctx, "demo", b, false))

	// A claim that live lost comes back with the next report.
	live.Kill()
	live.Restart()
	must(t, s.ReleaseClaim(ctx, "demo", "n2", "b"))
	must(t, s.PutIngestReport(ctx, store.IngestReport{Node: "n1", Paths: []store.IngestPath{path}}))
	wantErr(t, s.ClaimPublish(ctx, "demo", b, false), stream.ErrBusy)
	// The old one's report, late, does not take it back from one who took over.
	must(t, s.ClaimPublish(ctx, "demo", b, true))
	must(t, s.PutIngestReport(ctx, store.IngestReport{Node: "n1", Paths: []store.IngestPath{path}}))
	must(t, s.PutIngestReport(ctx, store.IngestReport{Node: "n1"}))
	wantErr(t, s.ClaimPublish(ctx, "demo", a, false), stream.ErrBusy)
}

// Of many publishers that claim at once, one gets it.
func TestClaimIsForOne(t *testing.T) {
	s, _, _ := open(t)
	for round := range 20 {
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				err := s.ClaimPublish(t.Context(), fmt.Sprintf("s%d", round), store.Claim{Node: "n", Conn: fmt.Sprint(i)}, false)
				switch {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, stream.ErrBusy):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d publishers won", won.Load())
		}
	}
}

func TestReports(t *testing.T) {
	s, _, live := open(t)
	ctx := t.Context()
	in := store.IngestReport{Node: "n1", Boot: "b", RTMP: "127.0.0.1:1935", Time: time.Now().UTC().Round(0),
		Paths: []store.IngestPath{{Stream: "demo", Session: "x", Ready: true, Tracks: []string{"H264"}, BytesReceived: 1 << 60}}}
	must(t, s.PutIngestReport(ctx, in))
	got, err := s.IngestReports(ctx)
	must(t, err)
	if !reflect.DeepEqual(got, []store.IngestReport{in}) {
		t.Fatalf("got %+v, want %+v", got, in)
	}
	must(t, s.PutIngestReport(ctx, store.IngestReport{Node: "n2", Boot: "b", Paths: []store.IngestPath{
		{Stream: "other", Session: "y", Ready: true}, {Stream: "demo", Session: "z", Ready: true}, {Stream: "not-yet", Session: "w"}}}))
	must(t, s.PutIngestReport(ctx, store.IngestReport{Node: "n3", Boot: "b"}))
	publishing, err := s.Publishing(ctx)
	must(t, err)
	if slices.Sort(publishing); !slices.Equal(publishing, []string{"demo", "demo", "other"}) {
		t.Fatalf("published are %q", publishing)
	}
	capPx := int64(100)
	must(t, s.PutReport(ctx, capacity.Report{Worker: "w2"}))
	must(t, s.PutReport(ctx, capacity.Report{Worker: "w1", Devices: []capacity.Device{{ID: "cpu", Capacity: &capPx}}}))
	seen, err := s.Reports(ctx)
	must(t, err)
	if len(seen) != 2 || seen[0].Worker != "w1" || *seen[0].Devices[0].Capacity != 100 || seen[0].Devices[0].Used != nil {
		t.Fatalf("got %+v", seen)
	}
	if seen[0].Age < 0 || seen[0].Age > 5*time.Second {
		t.Fatalf("age %v", seen[0].Age)
	}
	some, err := s.ReportsOf(ctx, []string{"w2", "none", "w1"})
	must(t, err)
	if len(some) != 2 || some[0].Worker != "w2" || some[1].Worker != "w1" || *some[1].Devices[0].Capacity != 100 || some[0].Age > 5*time.Second {
		t.Fatalf("of w2, none and w1 got %+v", some)
	}
	if none, err := s.ReportsOf(ctx, nil); err != nil || len(none) != 0 {
		t.Fatalf("of no worker got %+v, %v", none, err)
	}
	testkit.Eventually(t, 30*time.Second, "the reports to expire", func() error {
		if seen, err := s.Reports(ctx); err != nil || len(seen) != 0 {
			return fmt.Errorf("%d reports, %v", len(seen), err)
		}
		if got, err := s.IngestReports(ctx); err != nil || len(got) != 0 {
			return fmt.Errorf("%d ingest reports, %v", len(got), err)
		}
		if publishing, err := s.Publishing(ctx); err != nil || len(publishing) != 0 {
			return fmt.Errorf("published are %q, %v", publishing, err)
		}
		return nil
	})
	live.Kill()
	if _, err := s.ReportsOf(ctx, []string{"w1"}); err == nil {
		t.Fatal("read reports without Redis")
	}
	if _, err := s.Reports(ctx); err == nil {
		t.Fatal("no error while Redis is away")
	}
}

func TestStatusAndBroadcast(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	must(t, s.PutStatus(ctx, stream.RunStatus{Stream: "demo", Epoch: 10, State: stream.RunRunning}))
	wantErr(t, s.PutStatus(ctx, stream.RunStatus{Stream: "demo", Epoch: 9}), stream.ErrFenced)
	must(t, s.PutStatus(ctx, stream.RunStatus{Stream: "demo", Epoch: 10, State: stream.RunBackoff}))
	if r, err := s.Status(ctx, "demo"); err != nil || r.State != stream.RunBackoff {
		t.Fatalf("got %+v, %v", r, err)
	}
	b := stream.Broadcast{ID: "b1", Stream: "demo", State: stream.BroadcastGrace, Session: &stream.Session{ID: "x"}}
	must(t, s.PutBroadcast(ctx, b))
	if got, err := s.Broadcast(ctx, "demo"); err != nil || !reflect.DeepEqual(got, b) {
		t.Fatalf("got %+v, %v", got, err)
	}
}

func TestLease(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	take := func(holder string) (uint64, bool) {
		t.Helper()
		token, ok, err := s.AcquireLease(ctx, "x", holder, time.Minute)
		must(t, err)
		return token, ok
	}
	t1, ok := take("a")
	if !ok || t1 == 0 {
		t.Fatalf("token %d, %v", t1, ok)
	}
	if _, ok := take("b"); ok {
		t.Fatal("two hold the lease")
	}
	if again, ok := take("a"); !ok || again != t1 {
		t.Fatalf("one's own lease: token %d, %v", again, ok)
	}
	if ok, err := s.RenewLease(ctx, "x", "b", time.Minute); err != nil || ok {
		t.Fatalf("renewed by another: %v, %v", ok, err)
	}
	if ok, err := s.RenewLease(ctx, "x", "a", 50*time.Millisecond); err != nil || !ok {
		t.Fatalf("renewed: %v, %v", ok, err)
	}
	var t2 uint64
	testkit.Eventually(t, 10*time.Second, "the lease to expire", func() error {
		if t2, ok = take("b"); !ok {
			return errors.New("held")
		}
		return nil
	})
	if t2 <= t1 {
		t.Fatalf("token %d after %d", t2, t1)
	}
	if ok, err := s.RenewLease(ctx, "x", "a", time.Minute); err != nil || ok {
		t.Fatalf("a lost lease was renewed: %v, %v", ok, err)
	}
	must(t, s.ReleaseLease(ctx, "x", "a"))
	if _, ok := take("a"); ok {
		t.Fatal("released by one who does not hold it")
	}
	must(t, s.ReleaseLease(ctx, "x", "b"))
	if t3, ok := take("a"); !ok || t3 <= t2 {
		t.Fatalf("token %d after %d, %v", t3, t2, ok)
	}
}

func TestWatch(t *testing.T) {
	s, _, live := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	ch := s.Watch(ctx)
	next := func(want string) {
		t.Helper()
		select {
		case got := <-ch:
			if got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no %q", want)
		}
	}
	next("")
	must(t, s.Notify(t.Context(), "demo"))
	next("demo")
	live.Kill()
	live.Restart()
	next("") // anything may have changed meanwhile
	must(t, s.Notify(t.Context(), "other"))
	next("other")
	cancel()
	select {
	case _, ok := <-ch:
		if ok {
			t.Fatal("a value after the end")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the channel stays open")
	}
}

// A reader that reads nothing blocks nobody, and learns that it missed something.
func TestWatchSlowReader(t *testing.T) {
	s, _, _ := open(t)
	ch := s.Watch(t.Context())
	if got := <-ch; got != "" {
		t.Fatalf("got %q", got)
	}
	for i := range 500 {
		must(t, s.Notify(t.Context(), fmt.Sprint(i)))
	}
	testkit.Eventually(t, 30*time.Second, "\"\" for what was missed", func() error {
		must(t, s.Notify(t.Context(), "more"))
		for {
			select {
			case got := <-ch:
				if got == "" {
					return nil
				}
			default:
				return errors.New("not yet")
			}
		}
	})
}

// A release tells watchers that capacity came free, once.
func TestReleaseNotifies(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	e, err := s.Commit(ctx, on("a", "w1", 0, res("cpu", 1), upTo(1)...))
	must(t, err)
	ch := s.Watch(ctx)
	if id := <-ch; id != "" {
		t.Fatalf("subscribed with %q", id)
	}
	must(t, s.Release(ctx, "a", e))
	must(t, s.Release(ctx, "a", e))
	must(t, s.Notify(ctx, "last"))
	for _, want := range []string{"a", "last"} {
		if id := <-ch; id != want {
			t.Fatalf("notified of %q, want %q", id, want)
		}
	}
}
