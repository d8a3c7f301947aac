package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/services/task"
)

// still is a controller whose loop does not run: the test turns it.
func still(t testing.TB, change func(*Config, Store) Store) (*Controller, *store.Store) {
	t.Helper()
	return stillOn(t, testkit.NewRedis(t).URL(0), change)
}

func stillOn(t testing.TB, url string, change func(*Config, Store) Store) (*Controller, *store.Store) {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{StateURL: url})
	if err != nil {
		t.Fatal(err)
	}
	opt, err := asynq.ParseRedisURI(url)
	if err != nil {
		t.Fatal(err)
	}
	client := asynq.NewClient(opt)
	t.Cleanup(func() { _, _ = client.Close(), st.Close() })
	cfg, used := Config{Holder: "test", LeaseTTL: 10 * time.Minute, Hold: time.Millisecond}, Store(st)
	if change != nil {
		used = change(&cfg, st)
	}
	answers := func(context.Context, capacity.Report) error { return nil }
	c, err := New(cfg, used, client, answers, hclog.NewNullLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	c.begin(0)
	return c, st
}

// interrupted ends the context of whoever reads streams for the second time.
type interrupted struct {
	Store
	cancel context.CancelFunc
	asked  [][]string
}

func (s *interrupted) States(ctx context.Context, ids []string, broadcast func(string) bool) ([]store.State, string, error) {
	if s.asked = append(s.asked, ids); len(s.asked) == 2 {
		s.cancel()
	}
	return s.Store.States(ctx, ids, broadcast)
}

// A turn that could not look at all streams is gone on with by the next one, and
// that one looks at all.
func TestTurnGoesOnWhereItStopped(t *testing.T) {
	var stops *interrupted
	c, _ := still(t, func(_ *Config, s Store) Store {
		stops = &interrupted{Store: s}
		return stops
	})
	must(t, c.watchDatabase(t.Context(), false))
	s := &snapshot{now: time.Now(), publishing: map[string]publishing{}, active: map[string]bool{}}
	for i := range 3*chunk - 1 {
		s.publishing[fmt.Sprintf("s%05d", i)] = publishing{}
	}
	all := s.streams()
	ctx, cancel := context.WithCancel(t.Context())
	stops.cancel = cancel
	c.reconcileAll(ctx, s)
	if len(stops.asked) != 2 || c.from != all[chunk] {
		t.Fatalf("stopped after %d reads, to go on at %q", len(stops.asked), c.from)
	}
	stops.asked, stops.cancel = nil, func() {}
	c.reconcileAll(t.Context(), s)
	got := slices.Concat(stops.asked...)
	if got[0] != all[chunk] || c.from != "" {
		t.Fatalf("went on at %s, and next at %q", got[0], c.from)
	}
	if slices.Sort(got); !slices.Equal(got, all) {
		t.Fatalf("%d of %d streams were looked at", len(got), len(all))
	}
}

// replaced loses everything before each read of the streams.
type replaced struct {
	Store
	flush func()
}

func (s *replaced) States(ctx context.Context, ids []string, broadcast func(string) bool) ([]store.State, string, error) {
	s.flush()
	return s.Store.States(ctx, ids, broadcast)
}

// State is replaced in the middle of a turn: what is missing then is no stream that
// was deleted, and its broadcast goes on.
func TestStateIsReplacedInATurn(t *testing.T) {
	url := testkit.NewRedis(t).URL(0)
	opt, err := redis.ParseURL(url)
	must(t, err)
	client := redis.NewClient(opt)
	defer func() { _ = client.Close() }()
	var loses *replaced
	c, st := stillOn(t, url, func(_ *Config, s Store) Store {
		loses = &replaced{Store: s, flush: func() {}}
		return loses
	})
	ctx := t.Context()
	must(t, st.CreateStream(ctx, stream.Stream{ID: "show", Profile: "240p", Grace: 15, HoldBack: 12, Window: 60}, "hash"))
	must(t, st.PutIngestReport(ctx, store.IngestReport{Node: "n1", Boot: "b", Time: time.Now(), RTMP: "127.0.0.1:1935", RTSP: "127.0.0.1:8554",
		Paths: []store.IngestPath{{Stream: "show", Session: "s", Protocol: "rtmp", Ready: true, Tracks: []string{"H264"}, ReadySince: time.Now()}}}))
	c.turn(ctx)
	c.holdUntil = time.Time{}
	b, err := st.Broadcast(ctx, "show")
	must(t, err)
	generation := client.Get(ctx, "dionysia:generation").Val()
	loses.flush = func() { must(t, client.FlushAll(ctx).Err()) }
	c.turn(ctx)
	if s := c.streams["show"]; s == nil || s.broadcast == nil || s.broadcast.ID != b.ID || s.broadcast.State != stream.BroadcastLive {
		t.Fatalf("the broadcast %s is remembered as %+v", b.ID, s)
	}
	// A copy of before the broadcast is restored until the next turn, which finds the
	// generation that it knew.
	must(t, client.Set(ctx, "dionysia:generation", generation, 0).Err())
	loses.flush = func() {}
	c.turn(ctx)
	if again, err := st.Broadcast(ctx, "show"); err != nil || again.ID != b.ID {
		t.Fatalf("the broadcast %s is not written again: %+v, %v", b.ID, again, err)
	}
}

// BenchmarkTurn is a turn with 10,000 streams that publish and are placed, on 100
// workers: nothing has to be changed.
func BenchmarkTurn(b *testing.B) {
	const streams, workers = 10_000, 100
	c, st := still(b, nil)
	ctx := b.Context()
	node := store.IngestReport{Node: "n1", Boot: "b", RTMP: "127.0.0.1:1935", RTSP: "127.0.0.1:8554"}
	since := time.Now().UTC()
	for i := range streams {
		id := fmt.Sprintf("s%05d", i)
		node.Paths = append(node.Paths, store.IngestPath{Stream: id, Session: id, Protocol: "rtmp", Ready: true, Tracks: []string{"H264"}, ReadySince: since})
	}
	prof, _ := stream.Builtin("240p")
	fill := func(i int) error {
		id, w := node.Paths[i].Stream, fmt.Sprintf("w%d", i%workers)
		conf := stream.Stream{ID: id, Profile: "240p", Grace: 15, HoldBack: 12, Window: 60}
		sess := &stream.Session{ID: id, Stream: id, Node: "n1", Protocol: "rtmp"}
		bc := stream.Broadcast{ID: id, Stream: id, State: stream.BroadcastLive, StartedAt: since, Session: sess}
		px := placement.PriceProfile(capacity.CPU, prof).Px
		p := stream.Placement{Stream: id, Broadcast: id, Worker: w, Device: "cpu", Boot: "boot", State: stream.PlacementPlaced, Profile: prof,
			Reserved: []stream.Reservation{{Resource: "cpu", Amount: px}}, Source: stream.Source{Node: "n1", Session: id}, BroadcastStart: since}
		_, err := st.Commit(ctx, store.Proposal{Placement: p, Limits: []capacity.Limit{{Limit: 1 << 50}}})
		return errors.Join(st.CreateStream(ctx, conf, "hash"), st.PutBroadcast(ctx, bc), err)
	}
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := g; i < streams; i += 16 {
				if err := fill(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		return
	}
	px, off := int64(1<<40), 0.0
	report := func() {
		node.Time = time.Now()
		err := st.PutIngestReport(ctx, node)
		for i := range workers {
			id := fmt.Sprintf("w%d", i)
			err = errors.Join(err, st.PutReport(ctx, capacity.Report{Worker: id, Boot: "boot", Origin: id + ":1", Queue: task.Queue(id), ClockErrorMillis: &off, Ready: true,
				Devices: []capacity.Device{{ID: "cpu", Kind: capacity.CPU, Usable: true, Capacity: &px}}}))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	turn := func() time.Duration {
		start := time.Now()
		c.turn(ctx)
		return time.Since(start)
	}
	if _, ok, err := st.AcquireLease(ctx, lease, "test", 10*time.Minute); err != nil || !ok {
		b.Fatal(ok, err)
	}
	report()
	b.Logf("the first turn of a leader, which reads the broadcasts and enqueues every start task again: %s", turn())
	for c.from != "" { // it was not enough for all
		report()
		turn()
	}
	for b.Loop() {
		b.StopTimer()
		report()
		b.StartTimer()
		turn()
	}
	if c.from != "" || c.failing || len(c.streams) != streams {
		b.Fatalf("a turn has seen %d streams, and goes on at %q", len(c.streams), c.from)
	}
}
