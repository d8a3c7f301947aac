package api

import (
	"fmt"
	"net/http"
	"testing"
	"time"

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
		{Stream: "news", Session: "s3", Ready: true}, {Stream: "idle", Session: "s4"}, {Stream: "deleted", Session: "s5", Ready: true},
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
