package api

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestExplainOfTheQueue(t *testing.T) {
	h := newHarness(t)
	ingest := store.IngestReport{Node: "in1", Boot: "b"}
	publish := func(id, settings string, waited time.Duration, state stream.BroadcastState) {
		t.Helper()
		h.do("POST", "/v1/streams", `{"id":"`+id+`"`+settings+`}`).want(http.StatusCreated)
		b := stream.Broadcast{ID: "b1", Stream: id, State: state, StartedAt: time.Now().Add(-time.Hour)}
		if waited != 0 {
			b.WaitingSince, b.Reason = ptr(time.Now().UTC().Add(-waited)), "no capacity"
		}
		must(t, h.store.PutBroadcast(t.Context(), b))
		ingest.Paths = append(ingest.Paths, store.IngestPath{Stream: id, Session: "s1", Ready: true})
	}
	publish("moved", `,"profile":"360p"`, time.Second, stream.BroadcastLive)
	publish("vip", `,"profile":"360p","priority":90`, -10*time.Minute, stream.BroadcastLive)
	publish("big", `,"profile":"720p"`, 2*time.Minute, stream.BroadcastLive)
	publish("demo", `,"profile":"360p"`, 10*time.Second, stream.BroadcastLive)
	demo, err := h.store.Broadcast(t.Context(), "demo")
	must(t, err)
	since := *demo.WaitingSince
	publish("later", `,"profile":"360p"`, 5*time.Second, stream.BroadcastLive)
	publish("low", `,"profile":"360p","priority":10`, time.Hour, stream.BroadcastLive)
	publish("runs", `,"profile":"360p"`, 0, stream.BroadcastLive)
	publish("gone", `,"profile":"360p"`, time.Hour, stream.BroadcastEnded)
	publish("bad", `,"profile":"360p"`, time.Hour, stream.BroadcastLive)
	must(t, h.raw(0).Set(t.Context(), "dionysia:broadcast:bad", "{", 0).Err())
	h.create("new")
	h.hold("moved", "lost", stream.Reservation{Resource: "cpu", Amount: 1})
	h.hold("runs", "w1", stream.Reservation{Resource: "cpu", Amount: 150_000_000})
	ahead := func(p *wire.QueuePlace) string {
		if p == nil {
			return "none"
		}
		kept := "nothing"
		if k := p.Behind; k != nil {
			kept = fmt.Sprintf("%s %s/%s %s %t", k.Stream, k.Worker, k.Device, k.Reserved[0].Resource, k.Reserved[0].Amount > 50_000_000)
		}
		return fmt.Sprintf("%d of %d, after %d %d %d, kept %s", p.Position, p.Waiting, p.Ahead.LostWorker, p.Ahead.Priority, p.Ahead.Longer, kept)
	}
	for id, want := range map[string]struct{ place, reason string }{
		"moved": {"1 of 6, after 0 0 0, kept nothing", "fits"},
		"vip":   {"2 of 6, after 1 0 0, kept nothing", "fits"},
		"big":   {"3 of 6, after 1 1 0, kept nothing", "px"},
		"demo":  {"4 of 6, after 1 1 1, kept big w1/cpu cpu true", "kept"},
		"later": {"5 of 6, after 1 1 2, kept big w1/cpu cpu true", "kept"},
		"low":   {"6 of 6, after 1 4 0, kept big w1/cpu cpu true", "kept"},
		"runs":  {"none", "fits"},
		"new":   {"none", "kept"}, // if it began now
		"gone":  {"none", "kept"},
	} {
		testkit.Eventually(t, 60*time.Second, id, func() error {
			must(t, h.store.PutIngestReport(t.Context(), ingest)) // it and the worker's are old soon
			h.report("w1", "cpu")
			e := h.explain(id)
			if got := ahead(e.Queue); got != want.place || len(e.Devices) != 1 || e.Devices[0].Reason != want.reason {
				return fmt.Errorf("%s, %+v; want %s, %s", got, e.Devices, want.place, want.reason)
			}
			return nil
		})
	}
	if p := h.explain("demo").Queue; p == nil || !p.Since.Equal(since) {
		t.Errorf("demo waits since %s: %+v", since, p)
	}
}

// Nothing of the queue is read for a stream that runs.
func TestExplainOfAStreamThatRuns(t *testing.T) {
	h := newHarness(t)
	h.create("demo")
	h.hold("demo", "w1", stream.Reservation{Resource: "cpu", Amount: 1})
	h.report("w1", "cpu")
	hs := &handlers{store: noQueue{h.store}, ledgers: h.store.NewLedgers(), now: time.Now}
	e, err := hs.explain(t.Context(), "demo")
	if err != nil || e.Queue != nil || len(e.Devices) != 1 {
		t.Errorf("%+v, %v", e, err)
	}
}

type noQueue struct{ Store }

func (noQueue) Publishing(context.Context) ([]string, error) { panic("the queue is read") }
