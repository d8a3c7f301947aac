package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/services/task"
)

// fleet is a controller on real Redis, with reports that the test writes in
// the place of agents and workers.
type fleet struct {
	t     *testing.T
	redis *testkit.Redis
	opt   asynq.RedisConnOpt
	store *store.Store
	tasks *asynq.Inspector

	mu      sync.Mutex
	node    *store.IngestReport
	workers map[string]*capacity.Report
	answers map[string]bool // origins that answer a direct probe
}

func newFleet(t *testing.T) *fleet { return newFleetWith(t, nil) }

// newFleetWith lets a test change the controller's configuration.
func newFleetWith(t *testing.T, change func(*Config)) *fleet {
	t.Helper()
	r := testkit.NewRedis(t)
	url := r.URL(0)
	opt, err := asynq.ParseRedisURI(url)
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), store.Options{StateURL: url})
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, redis: r, opt: opt, store: st, tasks: asynq.NewInspector(opt), workers: map[string]*capacity.Report{}, answers: map[string]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f.beat(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = f.tasks.Close()
		_ = st.Close()
	})
	f.controller("test", change)
	return f
}

// controller starts a replica.
func (f *fleet) controller(name string, change func(*Config)) *Controller {
	f.t.Helper()
	cfg := Config{Holder: name, Interval: 50 * time.Millisecond, Suspect: 600 * time.Millisecond, Hold: 500 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	client := asynq.NewClient(f.opt)
	c, err := New(cfg, f.store, client, f.probe, hclog.New(&hclog.LoggerOptions{Output: testWriter{f.t}, Level: hclog.Info}), prometheus.NewRegistry())
	if err != nil {
		f.t.Fatal(err)
	}
	if err := c.Start(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		c.Stop(context.Background())
		_ = client.Close()
	})
	return c
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

func (f *fleet) probe(_ context.Context, r capacity.Report) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answers[r.Worker] {
		return nil
	}
	return errors.New("no answer")
}

// beat writes what agents and workers would report, until the test ends.
func (f *fleet) beat(ctx context.Context) {
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for {
		f.mu.Lock()
		if f.node != nil {
			f.node.Time = time.Now()
			_ = f.store.PutIngestReport(ctx, *f.node)
		}
		for _, w := range f.workers {
			_ = f.store.PutReport(ctx, *w)
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (f *fleet) worker(id, boot string, px int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	off := 0.0
	f.workers[id] = &capacity.Report{Worker: id, Boot: boot, Origin: id + ":1", Queue: task.Queue(id), ClockErrorMillis: &off, Ready: true,
		Devices: []capacity.Device{{ID: "cpu", Kind: capacity.CPU, Usable: true, Capacity: &px}}}
}

func (f *fleet) loseWorker(id string, answers bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.workers, id)
	f.answers[id] = answers
}

// publish shows the streams as ready at one node; session names each publish.
func (f *fleet) publish(sessions map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := store.IngestReport{Node: "n1", Boot: "b", RTMP: "127.0.0.1:1935", RTSP: "127.0.0.1:8554"}
	for id, s := range sessions {
		r.Paths = append(r.Paths, store.IngestPath{Stream: id, Session: s, Protocol: "rtmp", Ready: true, Tracks: []string{"H264"}, ReadySince: time.Now()})
	}
	f.node = &r
}

func (f *fleet) stream(id string, grace stream.Seconds) {
	f.t.Helper()
	f.create(stream.Stream{ID: id, Profile: "240p", Grace: grace})
}

func (f *fleet) create(s stream.Stream) {
	f.t.Helper()
	s.HoldBack, s.Window, s.CreatedAt, s.UpdatedAt, s.Version = 12, 60, time.Now(), time.Now(), 1
	if err := f.store.CreateStream(f.t.Context(), s, "hash"); err != nil {
		f.t.Fatal(err)
	}
}

// placed waits until the placement satisfies ok.
func (f *fleet) placed(id, what string, ok func(stream.Placement) bool) stream.Placement {
	f.t.Helper()
	var p stream.Placement
	testkit.Eventually(f.t, 15*time.Second, what, func() error {
		var err error
		if p, err = f.store.Placement(f.t.Context(), id); err != nil {
			return err
		}
		if !ok(p) {
			return fmt.Errorf("placement is %+v", p)
		}
		return nil
	})
	return p
}

func (f *fleet) broadcast(id, what string, ok func(stream.Broadcast) bool) stream.Broadcast {
	f.t.Helper()
	var b stream.Broadcast
	testkit.Eventually(f.t, 15*time.Second, what, func() error {
		var err error
		if b, err = f.store.Broadcast(f.t.Context(), id); err != nil {
			return err
		}
		if !ok(b) {
			return fmt.Errorf("broadcast is %+v", b)
		}
		return nil
	})
	return b
}

const plenty = 100_000_000

func TestPublisherComesBlinksAndGoes(t *testing.T) {
	f := newFleet(t)
	f.worker("w1", "boot1", plenty)
	f.stream("show", 2)
	f.publish(map[string]string{"show": "s1"})
	p := f.placed("show", "the first placement", func(p stream.Placement) bool { return p.State == stream.PlacementPlaced })
	if p.Worker != "w1" || p.Device != "cpu" || p.Epoch != 1 || p.Price <= 0 || p.Source.RTMP != "rtmp://127.0.0.1:1935/live/show" {
		t.Fatalf("placement %+v", p)
	}
	testkit.Eventually(t, 10*time.Second, "the start task on the worker's queue", func() error {
		_, err := f.tasks.GetTaskInfo(task.Queue("w1"), "show@1")
		return err
	})
	b := f.broadcast("show", "the broadcast", func(b stream.Broadcast) bool { return b.State == stream.BroadcastLive })

	f.publish(nil)
	f.broadcast("show", "grace", func(b stream.Broadcast) bool { return b.State == stream.BroadcastGrace })
	f.publish(map[string]string{"show": "s2"})
	b2 := f.broadcast("show", "the return", func(b stream.Broadcast) bool { return b.State == stream.BroadcastLive && b.Session.ID == "s2" })
	if b2.ID != b.ID {
		t.Fatalf("a return within the grace began another broadcast: %s, then %s", b.ID, b2.ID)
	}
	p2 := f.placed("show", "the new source", func(p stream.Placement) bool { return p.Source.Session == "s2" })
	if p2.Epoch != p.Epoch {
		t.Fatalf("epoch rose from %d to %d though the worker is the same", p.Epoch, p2.Epoch)
	}

	f.publish(nil)
	f.broadcast("show", "the end", func(b stream.Broadcast) bool { return b.State == stream.BroadcastEnded && b.EndedAt != nil })
	f.placed("show", "the placement ending", func(p stream.Placement) bool { return p.State == stream.PlacementEnding })
	if err := f.store.Release(t.Context(), "show", p.Epoch); err != nil { // the worker's part
		t.Fatal(err)
	}
	f.publish(map[string]string{"show": "s3"})
	b3 := f.broadcast("show", "another broadcast", func(nb stream.Broadcast) bool { return nb.ID != b.ID })
	f.placed("show", "its placement", func(p stream.Placement) bool { return p.Broadcast == b3.ID && p.Epoch == 2 })
}

func TestWorkerRestartsAndDies(t *testing.T) {
	f := newFleet(t)
	f.worker("w1", "boot1", plenty)
	f.stream("show", 15)
	f.publish(map[string]string{"show": "s1"})
	f.placed("show", "the placement", func(p stream.Placement) bool { return p.Epoch == 1 })

	f.worker("w1", "boot2", plenty)
	f.placed("show", "a new epoch after the worker's restart", func(p stream.Placement) bool {
		return p.Epoch == 2 && p.Worker == "w1" && p.Boot == "boot2"
	})

	// No heartbeat, but its origin answers: Redis is at fault, nothing moves.
	f.worker("w2", "boot1", plenty)
	f.loseWorker("w1", true)
	quiet := time.Now().Add(2 * time.Second)
	testkit.Eventually(t, 10*time.Second, "two seconds of quiet", func() error {
		p, err := f.store.Placement(t.Context(), "show")
		if err != nil {
			return err
		}
		if p.Epoch != 2 {
			t.Fatalf("moved to %s at epoch %d though its origin answers", p.Worker, p.Epoch)
		}
		if time.Now().Before(quiet) {
			return errors.New("not yet")
		}
		return nil
	})

	f.loseWorker("w1", false)
	f.placed("show", "the move to the other worker", func(p stream.Placement) bool { return p.Epoch == 3 && p.Worker == "w2" })
	ledger, err := f.store.Ledger(t.Context(), "w1")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(ledger["cpu"]); n != 0 {
		t.Fatalf("the lost worker still has %d reservations", n)
	}
}

func TestWaitsForRoomAndSaysWhy(t *testing.T) {
	f := newFleet(t)
	f.worker("w1", "boot1", 1000)
	f.stream("show", 15)
	f.publish(map[string]string{"show": "s1"})
	b := f.broadcast("show", "a reason", func(b stream.Broadcast) bool { return b.Reason != "" })
	if !strings.Contains(b.Reason, "w1/cpu") || !strings.Contains(b.Reason, "1000") {
		t.Fatalf("the reason names neither device nor limit: %q", b.Reason)
	}
	f.worker("w1", "boot1", plenty)
	f.placed("show", "the placement once there is room", func(p stream.Placement) bool { return p.State == stream.PlacementPlaced })
	f.broadcast("show", "the reason gone", func(b stream.Broadcast) bool { return b.Reason == "" })
}

func TestDeletedStreamEndsAtOnce(t *testing.T) {
	f := newFleet(t)
	f.worker("w1", "boot1", plenty)
	f.stream("show", 300)
	f.publish(map[string]string{"show": "s1"})
	f.placed("show", "the placement", func(p stream.Placement) bool { return p.Epoch == 1 })
	if err := f.store.DeleteStream(t.Context(), "show"); err != nil {
		t.Fatal(err)
	}
	f.placed("show", "the end", func(p stream.Placement) bool { return p.State == stream.PlacementEnding })
}
