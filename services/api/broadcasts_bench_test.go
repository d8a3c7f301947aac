package api

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// BenchmarkBroadcasts lists 10,000 live streams as `dionysia cluster status` does, a
// page after the other: 8,900 that run, 1,000 that wait for capacity, and 100 that are
// neither placed nor say why.
func BenchmarkBroadcasts(b *testing.B) {
	const streams = 10_000
	h := newHarness(b)
	defer h.keepReporting(h.manyLive(streams))()
	b.Run("all pages", func(b *testing.B) {
		for b.Loop() {
			if n := h.walk(b, "/v1/broadcasts"); n != streams {
				b.Fatalf("%d streams", n)
			}
		}
	})
	b.Run("explain of one that waits", func(b *testing.B) {
		for b.Loop() {
			a := send(b, "GET", h.url+"/v1/placement/explain?stream=s00009", nil, "Authorization", "Bearer "+adminToken)
			if e := decoded[wire.Explanation](a.want(http.StatusOK)); e.Queue == nil || e.Queue.Waiting != streams/10-streams/100 {
				b.Fatalf("%s", a.body)
			}
		}
	})
	b.Run("one status", func(b *testing.B) {
		for b.Loop() {
			send(b, "GET", h.url+"/v1/streams/s00007/status", nil, "Authorization", "Bearer "+adminToken).want(http.StatusOK)
		}
	})
}

// walk reads all pages of a list of statuses.
func (h *harness) walk(t testing.TB, path string) (items int) {
	for next := ""; ; {
		p := decoded[wire.StreamStatusPage](send(t, "GET", h.url+path+"?limit=200&after="+next, nil, "Authorization", "Bearer "+adminToken).want(http.StatusOK))
		items += len(p.Items)
		if p.Next == nil {
			return items
		}
		next = *p.Next
	}
}

// manyLive makes n streams, and the reports of ten ingest nodes that have a publisher of
// each.
func (h *harness) manyLive(n int) []store.IngestReport {
	h.t.Helper()
	// What is written here needs no fsync each; what is measured reads.
	if err := h.raw(0).ConfigSet(h.t.Context(), "appendfsync", "no").Err(); err != nil {
		h.t.Fatal(err)
	}
	reports := make([]store.IngestReport, 10)
	for i := range reports {
		reports[i] = store.IngestReport{Node: fmt.Sprintf("in%d", i), Boot: "b", RTMP: "10.0.0.1:1935", RTSP: "10.0.0.1:8554", Time: time.Now()}
	}
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range numbers {
				h.putLive(i)
			}
		})
	}
	for i := range n {
		numbers <- i
		r := &reports[i%len(reports)]
		r.Paths = append(r.Paths, store.IngestPath{Stream: numbered(i), Session: "0a7d5c2e-5b0e-4f0e-9a53-3a8f6f1f7a10", Protocol: "rtmp",
			Remote: "192.0.2.7:51234", Ready: true, Tracks: []string{"H264", "MPEG-4 Audio"}, BytesReceived: 123456789, ReadySince: time.Now()})
	}
	close(numbers)
	wg.Wait()
	return reports
}

// keepReporting sends the reports as the nodes would, until the function that it
// returns is called: they last ten seconds.
func (h *harness) keepReporting(reports []store.IngestReport) (stop func()) {
	h.t.Helper()
	send := func(ctx context.Context) error {
		for _, r := range reports {
			if err := h.store.PutIngestReport(ctx, r); err != nil {
				return err
			}
		}
		return nil
	}
	if err := send(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(2 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := send(ctx); err != nil && ctx.Err() == nil {
					h.t.Error(err)
				}
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

func numbered(i int) string { return fmt.Sprintf("s%05d", i) }

// putLive writes what is stored of a stream that somebody publishes.
func (h *harness) putLive(i int) {
	ctx, id, now := h.t.Context(), numbered(i), time.Now().UTC()
	fail := func(err error) {
		if err != nil {
			h.t.Error(err)
		}
	}
	fail(h.store.CreateStream(ctx, newStream(id), "hash"))
	broadcast := stream.Broadcast{ID: "b1", Stream: id, State: stream.BroadcastLive, StartedAt: now, Session: &stream.Session{ID: "s1", Stream: id, Node: "in1"}}
	switch {
	case i%100 == 99:
		fail(h.store.AddEvent(ctx, stream.Event{Stream: id, Time: now, Type: "placement.failed", Level: "error", Message: "why not"}))
	case i%10 == 9:
		broadcast.WaitingSince, broadcast.Reason = &now, "no capacity: cpu of w1 has 3 of 200 Mpx/s left, 120 are needed"
	default:
		epoch, err := h.store.Commit(ctx, store.Proposal{Limits: []capacity.Limit{{Limit: 1 << 50}}, Placement: stream.Placement{
			Stream: id, Broadcast: "b1", Worker: fmt.Sprintf("w%d", i%100), Device: "cpu", Boot: "b", State: stream.PlacementPlaced,
			Reserved: []stream.Reservation{{Resource: "cpu", Amount: 1}}, CommittedAt: now,
		}})
		fail(err)
		fail(h.store.PutStatus(ctx, stream.RunStatus{Stream: id, Epoch: epoch, State: stream.RunRunning, Session: "s1", UpdatedAt: now}))
	}
	fail(h.store.PutBroadcast(ctx, broadcast))
}
