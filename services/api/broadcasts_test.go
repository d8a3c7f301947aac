package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestBroadcastsAreThoseOfAnyPublisherOrPlacement(t *testing.T) {
	h := newHarness(t)
	for _, id := range []string{"idle", "placed", "waits", "news"} {
		h.create(id)
	}
	h.hold("placed", "w1", stream.Reservation{Resource: "cpu", Amount: 1})
	since := time.Now().UTC()
	for _, b := range []stream.Broadcast{
		{ID: "b1", Stream: "placed", State: stream.BroadcastLive, StartedAt: since},
		{ID: "b2", Stream: "waits", State: stream.BroadcastLive, StartedAt: since, WaitingSince: &since, Reason: "no capacity: there is no worker"},
		{ID: "b3", Stream: "idle", State: stream.BroadcastEnded, StartedAt: since, EndedAt: &since},
	} {
		if err := h.store.PutBroadcast(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.store.PutIngestReport(t.Context(), store.IngestReport{Node: "in1", Boot: "b", Time: since, Paths: []store.IngestPath{
		{Stream: "placed", Session: "s1", Ready: true}, {Stream: "waits", Session: "s2", Ready: true},
		{Stream: "news", Session: "s3", Ready: true}, {Stream: "idle", Session: "s4"}, {Stream: "deleted", Session: "s5", Ready: true}, {Stream: "No Id", Session: "s6", Ready: true},
	}}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for next := ""; ; {
		p := decoded[wire.StreamStatusPage](h.do("GET", "/v1/broadcasts?limit=2&after="+next, nil).want(http.StatusOK))
		for _, s := range p.Items {
			got = append(got, fmt.Sprintf("%s %s %t", s.Stream, s.State, s.Broadcast != nil && s.Broadcast.Reason != nil))
		}
		if p.Next == nil {
			break
		}
		next = *p.Next
	}
	if fmt.Sprint(got) != "[news offline false placed waiting false waits waiting true]" {
		t.Errorf("%q", got)
	}
	h.do("GET", "/v1/broadcasts?limit=0", nil).problem(http.StatusBadRequest)
	send(t, "GET", h.url+"/v1/broadcasts", nil).want(http.StatusUnauthorized)
}

// The list has of each stream what its own status has, whatever is stored of it and of
// its neighbours.
func TestBroadcastsAreTheStreamsStatuses(t *testing.T) {
	h := newHarness(t)
	since := time.Now().UTC().Truncate(time.Millisecond)
	want := map[string]string{}
	var paths []store.IngestPath
	for i, state := range []stream.BroadcastState{stream.BroadcastLive, stream.BroadcastGrace, stream.BroadcastEnded} {
		for j, run := range []stream.RunState{"", stream.RunStarting, stream.RunRunning, stream.RunBackoff} {
			for k, history := range []string{"", "warn", "error"} {
				id := fmt.Sprintf("s%d%d%d", i, j, k)
				h.create(id)
				paths = append(paths, store.IngestPath{Stream: id, Session: "s1", Ready: true})
				b := stream.Broadcast{ID: "b1", Stream: id, State: state, StartedAt: since, Session: &stream.Session{ID: "s1", Stream: id, Node: "in1"}}
				if err := h.store.PutBroadcast(t.Context(), b); err != nil {
					t.Fatal(err)
				}
				if history != "" {
					e := stream.Event{Stream: id, Time: since, Type: "placement.failed", Level: history, Message: "why " + id}
					if err := h.store.AddEvent(t.Context(), e); err != nil {
						t.Fatal(err)
					}
				}
				if run != "" {
					r := stream.RunStatus{Stream: id, Epoch: h.place(b), State: run, LastError: "run of " + id, UpdatedAt: since}
					if err := h.store.PutStatus(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				s := decoded[wire.StreamStatus](h.do("GET", "/v1/streams/"+id+"/status", nil).want(http.StatusOK))
				if wants := run == "" && state == stream.BroadcastLive && history == "error"; wants != (s.LastError != nil && *s.LastError == "why "+id) {
					t.Errorf("last error of %s: %+v", id, s)
				}
				want[id] = text(t, s)
			}
		}
	}
	if err := h.store.PutIngestReport(t.Context(), store.IngestReport{Node: "in1", Boot: "b", Paths: paths}); err != nil {
		t.Fatal(err)
	}
	listed := decoded[wire.StreamStatusPage](h.do("GET", "/v1/broadcasts", nil).want(http.StatusOK)).Items
	if len(listed) != len(want) {
		t.Errorf("%d are listed of %d", len(listed), len(want))
	}
	for _, s := range listed {
		if got := text(t, s); got != want[s.Stream] {
			t.Errorf("listed %s\nis     %s", got, want[s.Stream])
		}
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What can't be read of a stream fails the list as it fails the stream's own status,
// and not once the stream is deleted.
func TestBroadcastThatCannotBeRead(t *testing.T) {
	h := newHarness(t)
	for _, id := range []string{"good", "bad"} {
		h.create(id)
		h.hold(id, "w1", stream.Reservation{Resource: "cpu", Amount: 1})
	}
	const garbage = "no json, and no hash"
	for kind, db := range map[string]int{"broadcast": 0, "placement": 0, "status": 1} {
		c, key := h.raw(db), "dionysia:"+kind+":bad"
		was := c.Dump(t.Context(), key).Val() // "" for none
		must(t, c.Set(t.Context(), key, garbage, 0).Err())
		h.do("GET", "/v1/broadcasts", nil).problem(http.StatusInternalServerError)
		h.do("GET", "/v1/streams/bad/status", nil).problem(http.StatusInternalServerError)
		h.do("GET", "/v1/streams/good/status", nil).want(http.StatusOK)
		must(t, c.Del(t.Context(), key).Err())
		if was != "" {
			must(t, c.Restore(t.Context(), key, 0, was).Err())
		}
	}
	must(t, h.raw(1).Set(t.Context(), "dionysia:status:bad", garbage, 0).Err())
	must(t, h.store.DeleteStream(t.Context(), "bad"))
	if p := decoded[wire.StreamStatusPage](h.do("GET", "/v1/broadcasts", nil).want(http.StatusOK)); len(p.Items) != 1 || p.Items[0].Stream != "good" {
		t.Errorf("%+v", p)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (h *harness) raw(db int) *redis.Client {
	h.t.Helper()
	o, err := redis.ParseURL(h.redis.URL(db))
	if err != nil {
		h.t.Fatal(err)
	}
	c := redis.NewClient(o)
	h.t.Cleanup(func() { _ = c.Close() })
	return c
}

// A page costs the same number of reads however many streams are on it, and so does an
// ingest node's report.
func TestBroadcastsAreReadAtOnce(t *testing.T) {
	h := newHarness(t)
	c := &counted{Store: h.store}
	read := func(n int) int {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = fmt.Sprintf("s%d", i)
		}
		c.reads = 0
		list, err := (&handlers{store: c}).statuses(t.Context(), ids)
		if err != nil || len(list) != min(n, 20) {
			t.Fatalf("%d statuses of %d, %v", len(list), n, err)
		}
		return c.reads
	}
	for i := range 20 {
		id := fmt.Sprintf("s%d", i)
		h.create(id)
		if err := h.store.PutBroadcast(t.Context(), stream.Broadcast{ID: "b1", Stream: id, State: stream.BroadcastLive, StartedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	if one, all := read(1), read(30); one != 3 || all != one {
		t.Errorf("%d reads for a stream, %d for thirty", one, all)
	}
	var paths []wire.IngestPath
	for i := range 30 { // ten of them were never there
		paths = append(paths, wire.IngestPath{Stream: fmt.Sprintf("s%d", i)})
	}
	h.do("PATCH", "/v1/streams/s3", `{"disabled":true}`).want(http.StatusOK)
	h.do("DELETE", "/v1/streams/s5", nil).want(http.StatusNoContent)
	paths = append(paths, wire.IngestPath{Stream: "No Id"})
	c.reads = 0
	kick, err := (&handlers{store: c}).kicks(t.Context(), paths)
	slices.Sort(kick)
	if err != nil || c.reads != 1 || fmt.Sprint(kick) != "[No Id s3 s5]" {
		t.Errorf("%d reads to kick %q, %v", c.reads, kick, err)
	}
}

// counted counts what statuses reads; of one stream it may read nothing.
type counted struct {
	Store
	reads int
}

func (c *counted) GetStream(context.Context, string) (stream.Stream, error) { panic("of one stream") }

func (c *counted) Broadcast(context.Context, string) (stream.Broadcast, error) {
	panic("of one stream")
}

func (c *counted) Placement(context.Context, string) (stream.Placement, error) {
	panic("of one stream")
}

func (c *counted) Status(context.Context, string) (stream.RunStatus, error) { panic("of one stream") }

func (c *counted) Events(context.Context, string, string, int) ([]stream.Event, error) {
	panic("of one stream")
}

func (c *counted) States(ctx context.Context, ids []string, broadcast func(string) bool) ([]store.State, string, error) {
	c.reads++
	return c.Store.States(ctx, ids, broadcast)
}

func (c *counted) Statuses(ctx context.Context, ids []string) (map[string]stream.RunStatus, error) {
	c.reads++
	return c.Store.Statuses(ctx, ids)
}

func (c *counted) NewestEvents(ctx context.Context, ids []string, limit int) (map[string][]stream.Event, error) {
	c.reads++
	return c.Store.NewestEvents(ctx, ids, limit)
}
