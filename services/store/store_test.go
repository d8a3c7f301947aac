package store_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// open returns a store with its two roles on two servers.
func open(t testing.TB) (s *store.Store, state, live *testkit.Redis) {
	t.Helper()
	state, live = testkit.NewRedis(t), testkit.NewRedis(t)
	return openURL(t, state.URL(0), live.URL(0)), state, live
}

func openURL(t testing.TB, state, live string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{StateURL: state, LiveURL: live, Registerer: prometheus.NewRegistry(),
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: testWriter{t}})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil { // not after the test's end
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func demo(id string) stream.Stream {
	return stream.Stream{ID: id, Name: "Test", Profile: "720p", Grace: 15, HoldBack: 12, Window: 60}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

func TestStreams(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	must(t, s.CreateStream(ctx, demo("demo"), "hash1"))
	wantErr(t, s.CreateStream(ctx, demo("demo"), "hash2"), stream.ErrExists)
	if h, err := s.StreamKeyHash(ctx, "demo"); err != nil || h != "hash1" {
		t.Fatalf("key hash %q, %v", h, err)
	}
	got, err := s.GetStream(ctx, "demo")
	must(t, err)
	if got.Version != 1 || got.Name != "Test" || got.CreatedAt.IsZero() || !got.UpdatedAt.Equal(got.CreatedAt) {
		t.Fatalf("got %+v", got)
	}
	edit := got
	edit.Name = "Other"
	edit, err = s.UpdateStream(ctx, edit)
	must(t, err)
	if edit.Version != 2 {
		t.Fatalf("version %d after an update", edit.Version)
	}
	_, err = s.UpdateStream(ctx, got)
	wantErr(t, err, stream.ErrConflict)
	if read, err := s.GetStream(ctx, "demo"); err != nil || !reflect.DeepEqual(read, edit) {
		t.Fatalf("read %+v (%v), wrote %+v", read, err, edit)
	}
	must(t, s.SetStreamKey(ctx, "demo", "hash3"))
	if h, _ := s.StreamKeyHash(ctx, "demo"); h != "hash3" {
		t.Fatalf("key hash %q", h)
	}
	bad := demo("demo:x")
	wantErr(t, s.CreateStream(ctx, bad, ""), stream.ErrInvalid)
	bad = demo("other")
	bad.Profile = "missing"
	err = s.CreateStream(ctx, bad, "")
	wantErr(t, err, stream.ErrInvalid)
	if f := stream.FieldErrors(err); len(f) != 1 || f[0].Field != "profile" {
		t.Fatalf("fields %v", f)
	}
	must(t, s.DeleteStream(ctx, "demo"))
	for name, err := range map[string]error{
		"delete": s.DeleteStream(ctx, "demo"), "key": s.SetStreamKey(ctx, "demo", "x"),
		"get": second(s.GetStream(ctx, "demo")), "hash": second(s.StreamKeyHash(ctx, "demo")),
		"update": second(s.UpdateStream(ctx, edit)), "route": second(s.Route(ctx, "demo")),
		"placement": second(s.Placement(ctx, "demo")), "broadcast": second(s.Broadcast(ctx, "demo")),
		"status": second(s.Status(ctx, "demo")), "tail": second(s.LoadTail(ctx, "demo")),
		"source": s.UpdateSource(ctx, "demo", 1, stream.Source{}), "shrink": s.Shrink(ctx, "demo", 1, 1), "ending": s.SetEnding(ctx, "demo", 1),
	} {
		if !errors.Is(err, stream.ErrNotFound) {
			t.Errorf("%s of a missing stream: got %v, want ErrNotFound", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestListStreams(t *testing.T) {
	s, _, _ := open(t)
	var want []string
	for i := range 7 {
		id := fmt.Sprintf("s%d", i)
		want = append(want, id)
		must(t, s.CreateStream(t.Context(), demo(id), "h"))
	}
	var got []string
	after, pages := "", 0
	for {
		list, next, err := s.ListStreams(t.Context(), after, 3)
		must(t, err)
		pages++
		for _, st := range list {
			got = append(got, st.ID)
		}
		if next == "" {
			break
		}
		after = next
	}
	if !slices.Equal(got, want) || pages != 3 {
		t.Fatalf("%d pages of %v", pages, got)
	}
	if list, next, err := s.ListStreams(t.Context(), "s6", 3); err != nil || len(list) != 0 || next != "" {
		t.Fatalf("after the last: %v, %q, %v", list, next, err)
	}
}

func TestProfiles(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	p, _ := stream.Builtin("360p")
	p.Name, p.Version = "mine", 0
	p, err := s.PutProfile(ctx, p)
	must(t, err)
	if p.Version != 1 || p.BuiltIn {
		t.Fatalf("got %+v", p)
	}
	again := p
	again.Version = 0
	wantErr(t, second(s.PutProfile(ctx, again)), stream.ErrConflict)
	p.Segment = 4
	p, err = s.PutProfile(ctx, p)
	must(t, err)
	if read, err := s.GetProfile(ctx, "mine"); err != nil || !reflect.DeepEqual(read, p) || read.Version != 2 {
		t.Fatalf("read %+v (%v), wrote %+v", read, err, p)
	}
	b, _ := stream.Builtin("720p")
	wantErr(t, second(s.PutProfile(ctx, b)), stream.ErrExists)
	wantErr(t, s.DeleteProfile(ctx, "720p"), stream.ErrInUse)
	wantErr(t, second(s.GetProfile(ctx, "none")), stream.ErrNotFound)
	wantErr(t, s.DeleteProfile(ctx, "none"), stream.ErrNotFound)
	list, err := s.ListProfiles(ctx)
	must(t, err)
	if len(list) != len(stream.Builtins())+1 {
		t.Fatalf("%d profiles", len(list))
	}

	st := demo("demo")
	st.Profile = "mine"
	must(t, s.CreateStream(ctx, st, "h"))
	wantErr(t, s.DeleteProfile(ctx, "mine"), stream.ErrInUse)
	st.Version, st.Profile = 1, "360p"
	must(t, second(s.UpdateStream(ctx, st)))
	must(t, s.DeleteProfile(ctx, "mine"))
	st.Version, st.Profile = 2, "mine"
	wantErr(t, second(s.UpdateStream(ctx, st)), stream.ErrInvalid)
}

func TestEvents(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	for i := range 1100 {
		must(t, s.AddEvent(ctx, stream.Event{Stream: "demo", Type: "x", Message: fmt.Sprint(i), Time: time.Unix(int64(i), 0).UTC()}))
	}
	newest, err := s.Events(ctx, "demo", "", 3)
	must(t, err)
	if len(newest) != 3 || newest[2].Message != "1099" || newest[0].Message != "1097" {
		t.Fatalf("newest %+v", newest)
	}
	rest, err := s.Events(ctx, "demo", newest[0].ID, 10)
	must(t, err)
	if len(rest) != 2 || rest[0].ID != newest[1].ID {
		t.Fatalf("after %s: %+v", newest[0].ID, rest)
	}
	if all, err := s.Events(ctx, "demo", "0-0", 5000); err != nil || len(all) > 1000 {
		t.Fatalf("%d events, %v", len(all), err)
	}
	wantErr(t, second(s.Events(ctx, "demo", "+ x", 1)), stream.ErrInvalid)
	if none, err := s.Events(ctx, "none", "", 1); err != nil || none == nil || len(none) != 0 {
		t.Fatalf("got %v, %v", none, err)
	}
}

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
	testkit.Eventually(t, 30*time.Second, "the reports to expire", func() error {
		if seen, err := s.Reports(ctx); err != nil || len(seen) != 0 {
			return fmt.Errorf("%d reports, %v", len(seen), err)
		}
		if got, err := s.IngestReports(ctx); err != nil || len(got) != 0 {
			return fmt.Errorf("%d ingest reports, %v", len(got), err)
		}
		return nil
	})
	live.Kill()
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

// A malformed URL's error does not show the password.
func TestOpenHidesThePassword(t *testing.T) {
	for _, url := range []string{"redis://:hunter2@127.0.0.1:x/0", "http://:hunter2@h/", "redis://:hunter2@h/no-db"} {
		_, err := store.Open(t.Context(), store.Options{StateURL: url})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", url, err)
		}
	}
}

// With Redis away, refused or frozen, calls fail in about the time-out; with it
// back, the same store works, and what was acknowledged is there.
func TestRedisAway(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	must(t, s.CreateStream(ctx, demo("demo"), "hash1"))
	quick := func(what string) {
		t.Helper()
		start := time.Now()
		if err := s.Ping(ctx); err == nil {
			t.Fatalf("%s: no error", what)
		}
		_, err := s.GetStream(ctx, "demo")
		if err == nil || errors.Is(err, stream.ErrNotFound) {
			t.Fatalf("%s: got %v", what, err)
		}
		if d := time.Since(start); d > 10*time.Second { // two calls of 1 s, on a busy machine
			t.Fatalf("%s: two calls took %v", what, d)
		}
	}
	back := func() {
		t.Helper()
		testkit.Eventually(t, 30*time.Second, "the store to work again", func() error {
			h, err := s.StreamKeyHash(ctx, "demo")
			if err == nil && h != "hash1" {
				t.Fatalf("the key hash is %q", h)
			}
			return err
		})
	}
	must(t, syscall.Kill(state.PID(), syscall.SIGSTOP))
	quick("frozen")
	must(t, syscall.Kill(state.PID(), syscall.SIGCONT))
	back()
	state.Kill()
	quick("killed")
	state.Restart()
	back()
	got, err := s.GetStream(ctx, "demo")
	must(t, err)
	if got.Version != 1 {
		t.Fatalf("got %+v", got)
	}
}

// What was acknowledged survives kill -9 of the server in the midst of writing.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	var mu sync.Mutex
	acked := map[string]string{}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("s%d-%d", g, i)
				if s.CreateStream(ctx, demo(id), "first") != nil {
					return
				}
				hash := "first"
				if s.SetStreamKey(ctx, id, "second") == nil {
					hash = "second"
				}
				mu.Lock()
				acked[id] = hash
				mu.Unlock()
			}
		})
	}
	testkit.Eventually(t, 60*time.Second, "some streams", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(acked) < 50 {
			return fmt.Errorf("%d streams", len(acked))
		}
		return nil
	})
	state.Kill()
	wg.Wait()
	state.Restart()
	testkit.Eventually(t, 30*time.Second, "the store to work again", func() error { return s.Ping(ctx) })
	for id, hash := range acked {
		got, err := s.StreamKeyHash(ctx, id)
		// An update that was not acknowledged may have happened.
		if err != nil || (got != hash && got != "second") {
			t.Errorf("%s: key hash %q (%v), acknowledged %q", id, got, err, hash)
		}
	}
}

// One server may play both roles, and two stores may share a registry.
func TestOneServer(t *testing.T) {
	r := testkit.NewRedis(t)
	reg := prometheus.NewRegistry()
	for range 2 {
		s, err := store.Open(t.Context(), store.Options{StateURL: r.URL(0), Registerer: reg})
		must(t, err)
		must(t, s.Ping(t.Context()))
		must(t, s.Close())
	}
	families, err := reg.Gather()
	must(t, err)
	if len(families) == 0 {
		t.Fatal("no metrics")
	}
}

// A store that starts before Redis works once Redis does.
func TestOpenBeforeRedis(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	s := openURL(t, "redis://:x@"+addr+"/0", "")
	if err := s.Ping(t.Context()); err == nil {
		t.Fatal("no error")
	}
}

func TestGeneration(t *testing.T) {
	s, state, _ := open(t)
	g1, err := s.Generation(t.Context())
	must(t, err)
	if again, err := s.Generation(t.Context()); err != nil || again != g1 {
		t.Fatalf("got %q (%v), then %q", g1, err, again)
	}
	state.Kill()
	state.Restart()
	var g2 string
	testkit.Eventually(t, 30*time.Second, "the generation", func() error { g2, err = s.Generation(t.Context()); return err })
	if g1 == g2 {
		t.Fatal("a restart does not show")
	}
	before := time.Now()
	now, err := s.Time(t.Context())
	must(t, err)
	if d := now.Sub(before); d < -time.Second || d > 10*time.Second {
		t.Fatalf("redis' time is %v off", d)
	}
}
