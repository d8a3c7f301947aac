package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func (h *harness) publish(id, key, node, conn string, takeover bool) answer {
	h.t.Helper()
	return h.do("POST", "/internal/v1/ingest/publish", wire.PublishRequest{
		Stream: id, Key: key, Node: node, Conn: conn, Protocol: "rtmp", Remote: "192.0.2.7:5000", Takeover: takeover,
	})
}

func (h *harness) eventsOf(id, kind string) []wire.Event {
	h.t.Helper()
	var found []wire.Event
	for _, e := range decoded[wire.EventPage](h.do("GET", "/v1/streams/"+id+"/events?limit=200", nil).want(http.StatusOK)).Items {
		if e.Type == kind {
			found = append(found, e)
		}
	}
	return found
}

func TestPublish(t *testing.T) {
	h := newHarness(t)
	key := h.create("demo").Key
	other := h.create("other").Key
	h.do("PATCH", "/v1/streams/other", `{"disabled":true}`).want(http.StatusOK)
	tests := []struct {
		name, stream, key string
		status            int
		reason            string
	}{
		{"unknown stream", "nothing", key, http.StatusForbidden, reasonUnknown},
		{"not an id", "../demo", key, http.StatusForbidden, reasonUnknown},
		{"no id", "", key, http.StatusForbidden, reasonUnknown},
		{"wrong key", "demo", other, http.StatusForbidden, reasonBadKey},
		{"no key", "demo", "", http.StatusForbidden, reasonNoKey},
		{"no key, disabled", "other", "", http.StatusForbidden, reasonNoKey},
		{"no key, unknown stream", "nothing", "", http.StatusForbidden, reasonUnknown},
		{"half a key", "demo", key[:len(key)/2], http.StatusForbidden, reasonBadKey},
		{"huge key", "demo", strings.Repeat("k", 100000), http.StatusForbidden, reasonBadKey},
		{"disabled", "other", other, http.StatusForbidden, reasonDisabled},
		{"disabled, and a wrong key learns nothing of it", "other", key, http.StatusForbidden, reasonBadKey},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h := *h
			h.t = t
			if p := h.publish(tc.stream, tc.key, "n1", "c", false).problem(tc.status); p.Reason != tc.reason {
				t.Errorf("reason %q, want %q", p.Reason, tc.reason)
			}
		})
	}
	grant := decoded[wire.PublishGrant](h.publish("demo", key, "n1", "c1", false).want(http.StatusOK))
	if grant.Stream != "demo" || grant.GraceSeconds != 15 {
		t.Errorf("grant %+v", grant)
	}
	h.publish("demo", key, "n1", "c1", false).want(http.StatusOK) // asked twice
	if p := h.publish("demo", key, "n2", "c2", false).problem(http.StatusConflict); p.Reason != reasonBusy {
		t.Errorf("reason %q", p.Reason)
	}
	h.publish("demo", other, "n2", "c2", true).problem(http.StatusForbidden) // no takeover without the key
	h.publish("demo", key, "n2", "c2", true).want(http.StatusOK)
	h.publish("demo", key, "n1", "c3", false).problem(http.StatusConflict)
	release := func(node, conn string) {
		h.do("POST", "/internal/v1/ingest/release", wire.ReleaseRequest{Stream: "demo", Node: node, Conn: conn}).want(http.StatusNoContent)
	}
	release("n1", "c1") // the old holder's, which is not the holder
	h.publish("demo", key, "n1", "c3", false).problem(http.StatusConflict)
	release("n2", "c2")
	release("n2", "c2")
	h.publish("demo", key, "n1", "c3", false).want(http.StatusOK)

	// Three reasons were given for demo; each is in its history once, however
	// often it was given.
	refused := h.eventsOf("demo", "publish.refused")
	if len(refused) != 3 {
		t.Errorf("events %+v", refused)
	}
	if e := refused[0]; e.Message != "rtmp publisher 192.0.2.7:5000 refused: The stream key is wrong." {
		t.Errorf("first %+v", e)
	}
	if e := refused[1]; e.Message != "rtmp publisher 192.0.2.7:5000 refused: There is no stream key." {
		t.Errorf("second %+v", e)
	}
	if list, err := h.store.Events(t.Context(), "nothing", "", 10); err != nil || len(list) != 0 {
		t.Errorf("a stream that does not exist has events %+v, %v", list, err)
	}
	if logs := h.logs.String(); strings.Contains(logs, key) || strings.Contains(logs, other) {
		t.Error("a stream key is in the log")
	}
	if !strings.Contains(h.logs.String(), "reason=unknown_stream") {
		t.Error("the refusal of an unknown stream is not in the log")
	}
}

func TestPublishRace(t *testing.T) {
	h := newHarness(t)
	key := h.create("demo").Key
	statuses := together(12, func(i int) int {
		return h.publish("demo", key, fmt.Sprint("n", i), "c", false).status
	})
	if statuses[http.StatusOK] != 1 || statuses[http.StatusConflict] != 11 {
		t.Errorf("statuses %v", statuses)
	}
}

func report(node string, paths ...wire.IngestPath) wire.IngestReport {
	return wire.IngestReport{Node: node, Boot: "b1", Rtmp: "127.0.0.1:1935", Rtsp: "127.0.0.1:8554", Time: time.Now(), Paths: paths}
}

func TestIngestReport(t *testing.T) {
	h := newHarness(t)
	for _, id := range []string{"a", "b", "gone"} {
		h.create(id)
	}
	h.do("DELETE", "/v1/streams/gone", nil).want(http.StatusNoContent)
	watch, cancel := context.WithCancel(t.Context())
	defer cancel()
	notified := h.store.Watch(watch)
	path := func(id, session string, ready bool) wire.IngestPath {
		return wire.IngestPath{Stream: id, Session: session, Protocol: "rtmp", Ready: ready, Tracks: []string{"H264"}}
	}
	put := func(paths ...wire.IngestPath) []string {
		return decoded[wire.IngestReply](h.do("PUT", "/internal/v1/ingest/nodes/n1", report("n1", paths...)).want(http.StatusOK)).Kick
	}
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-notified:
			if got != want {
				t.Errorf("notified of %q, want %q", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("not notified of %q", want)
		}
	}
	expect("") // subscribed
	if kick := put(path("a", "s1", false)); len(kick) != 0 {
		t.Errorf("kick %v", kick)
	}
	expect("a")
	put(path("a", "s1", true))
	expect("a")
	put(path("a", "s1", true)) // no change: nobody is woken
	put(path("a", "s1", true), path("b", "s2", true))
	expect("b")
	reports, err := h.store.IngestReports(t.Context())
	if err != nil || len(reports) != 1 || len(reports[0].Paths) != 2 || reports[0].Paths[0].Session != "s1" || !reports[0].Paths[0].Ready {
		t.Errorf("reports %+v, %v", reports, err)
	}
	h.do("PATCH", "/v1/streams/a", `{"disabled":true}`).want(http.StatusOK)
	expect("a")
	if kick := put(path("a", "s1", true), path("b", "s2", true), path("gone", "s3", true)); fmt.Sprint(kick) != "[a gone]" {
		t.Errorf("kick %v", kick)
	}
	expect("gone")
	put()
	got := map[string]bool{}
	for range 3 {
		select {
		case id := <-notified:
			got[id] = true
		case <-time.After(10 * time.Second):
			t.Fatalf("notified only of %v", got)
		}
	}
	if !got["a"] || !got["b"] || !got["gone"] {
		t.Errorf("notified of %v", got)
	}
}

// Redis state is lost: its publishers are not disconnected, and what the agent is told
// of one that returns is not what it is told of a stream that was deleted.
func TestPublishersOfLostStreamsStay(t *testing.T) {
	h := newHarness(t)
	key := h.create("show").Key
	h.publish("show", key, "n1", "c1", false).want(http.StatusOK)
	c := redis.NewClient(&redis.Options{Addr: h.redis.Addr, Password: h.redis.Password})
	defer c.Close()
	if err := c.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	kicked := func() []string {
		path := wire.IngestPath{Stream: "show", Session: "s1", Protocol: "rtmp", Ready: true, Tracks: []string{"H264"}}
		return decoded[wire.IngestReply](h.do("PUT", "/internal/v1/ingest/nodes/n1", report("n1", path)).want(http.StatusOK)).Kick
	}
	if kick := kicked(); len(kick) != 0 {
		t.Errorf("kick %v", kick)
	}
	if p := h.publish("show", key, "n1", "c2", false).problem(http.StatusForbidden); p.Reason != reasonUnknown {
		t.Errorf("reason %q", p.Reason)
	}
	h.create("show")
	h.do("DELETE", "/v1/streams/show", nil).want(http.StatusNoContent)
	if kick := kicked(); len(kick) != 1 {
		t.Errorf("deleted, and kick %v", kick)
	}
	if p := h.publish("show", key, "n1", "c2", false).problem(http.StatusForbidden); p.Reason != reasonDeleted {
		t.Errorf("deleted, and reason %q", p.Reason)
	}
}

// A stream was deleted, created again and published, and a copy of state from in
// between was restored: the deletion is not this one's.
func TestPublisherOfAFormerDeletionStays(t *testing.T) {
	h := newHarness(t)
	h.create("show")
	h.do("DELETE", "/v1/streams/show", nil).want(http.StatusNoContent)
	c := redis.NewClient(&redis.Options{Addr: h.redis.Addr, Password: h.redis.Password})
	defer c.Close()
	must(t, c.HSet(t.Context(), "dionysia:deleted-streams", "show", time.Now().Add(-time.Hour).Unix()).Err())
	for since, want := range map[time.Duration]int{2 * time.Hour: 1, 30 * time.Minute: 0} {
		ready := time.Now().Add(-since)
		path := wire.IngestPath{Stream: "show", Session: "s1", Protocol: "rtmp", Ready: true, Tracks: []string{"H264"}, ReadySince: &ready}
		if kick := decoded[wire.IngestReply](h.do("PUT", "/internal/v1/ingest/nodes/n1", report("n1", path)).want(http.StatusOK)).Kick; len(kick) != want {
			t.Errorf("published for %s: kick %v", since, kick)
		}
	}
}

// A stream that state has lost, and of which something goes on, can be ended by
// deleting it; of what nothing goes on there is nothing to delete.
func TestDeleteWhatWasLost(t *testing.T) {
	h := newHarness(t)
	for _, id := range []string{"published", "placed", "runs", "nothing"} {
		h.create(id)
	}
	c := redis.NewClient(&redis.Options{Addr: h.redis.Addr, Password: h.redis.Password})
	defer c.Close()
	if err := c.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	h.place(stream.Broadcast{ID: "b", Stream: "placed", State: stream.BroadcastLive})
	kicked := func() []string {
		path := wire.IngestPath{Stream: "published", Session: "s1", Protocol: "rtmp", Ready: true, Tracks: []string{"H264"}}
		return decoded[wire.IngestReply](h.do("PUT", "/internal/v1/ingest/nodes/n1", report("n1", path)).want(http.StatusOK)).Kick
	}
	if kick := kicked(); len(kick) != 0 {
		t.Errorf("lost, and kick %v", kick)
	}
	for _, id := range []string{"published", "placed", "runs"} {
		if id == "runs" { // just before: a report is believed for seconds
			must(t, h.store.PutReport(t.Context(), capacity.Report{Worker: "w9", Boot: "b", Runs: map[string]uint64{"runs": 3}}))
		}
		h.do("DELETE", "/v1/streams/"+id, nil).want(http.StatusNoContent)
		if _, err := h.store.GetStream(t.Context(), id); !errors.Is(err, stream.ErrDeleted) {
			t.Errorf("%s: %v", id, err)
		}
	}
	h.do("DELETE", "/v1/streams/nothing", nil).problem(http.StatusNotFound)
	h.do("DELETE", "/v1/streams/Not-An-Id", nil).problem(http.StatusNotFound)
	if kick := kicked(); len(kick) != 1 {
		t.Errorf("deleted, and kick %v", kick)
	}
}

func TestStatus(t *testing.T) {
	h := newHarness(t)
	h.create("demo")
	status := func() wire.StreamStatus {
		t.Helper()
		return decoded[wire.StreamStatus](h.do("GET", "/v1/streams/demo/status", nil).want(http.StatusOK))
	}
	if s := status(); s.State != wire.StreamStateOffline || s.Broadcast != nil || s.Placement != nil || s.Run != nil || len(s.Renditions) != 0 {
		t.Errorf("offline: %+v", s)
	}
	start := time.Now().UTC().Truncate(time.Millisecond).Add(-time.Second)
	session := stream.Session{ID: "s1", Stream: "demo", Node: "n1", Protocol: "srt", Remote: "192.0.2.7:5000", Tracks: []string{"H264"}, StartedAt: start}
	const noRoom = "no capacity: w1/cpu: needs 60 px/s; of 50 px/s, 0 are reserved and 0 used"
	b := stream.Broadcast{ID: "b1", Stream: "demo", State: stream.BroadcastLive, StartedAt: start, Session: &session, Reason: noRoom}
	if err := h.store.PutBroadcast(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if s := status(); s.State != wire.StreamStateWaiting || s.Session == nil || s.Session.Protocol != "srt" || s.LastError == nil || *s.LastError != noRoom {
		t.Errorf("not placed: %+v", s)
	}
	b.Reason = ""
	if err := h.store.PutBroadcast(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	epoch := h.place(b)
	if s := status(); s.State != wire.StreamStateWaiting || s.Placement == nil || s.Placement.Epoch != epoch || s.Placement.Worker != "w1" {
		t.Errorf("placed: %+v", s)
	}
	report := func(epoch uint64, state stream.RunState, lastError string) {
		t.Helper()
		err := h.store.PutStatus(t.Context(), stream.RunStatus{
			Stream: "demo", Epoch: epoch, Run: 2, State: state, Restarts: 1, LastError: lastError, UpdatedAt: time.Now(),
			Renditions: []stream.RenditionStatus{{Name: "360p", Codec: "avc1.64001e", Width: 640, Height: 360, FPS: 29.97, Bitrate: 800000}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	report(epoch, stream.RunRunning, "")
	s := status()
	if s.State != wire.StreamStateLive || s.Run == nil || s.Run.ID != fmt.Sprintf("e%dr2", epoch) || s.Run.Restarts != 1 || len(s.Renditions) != 1 || *s.Renditions[0].Fps != 29.97 {
		t.Errorf("live: %+v", s)
	}
	report(epoch, stream.RunBackoff, "GPAC exited with 1")
	if s := status(); s.State != wire.StreamStateFailing || s.LastError == nil || *s.LastError != "GPAC exited with 1" {
		t.Errorf("failing: %+v", s)
	}
	report(epoch, stream.RunRunning, "")
	b.State = stream.BroadcastGrace
	if err := h.store.PutBroadcast(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if s := status(); s.State != wire.StreamStateGrace || s.Session != nil {
		t.Errorf("grace: %+v", s)
	}
	now := time.Now()
	b.State, b.EndedAt = stream.BroadcastEnded, &now
	if err := h.store.PutBroadcast(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if s := status(); s.State != wire.StreamStateOffline || s.Broadcast == nil || s.Broadcast.EndedAt == nil {
		t.Errorf("ended: %+v", s)
	}
}

// place commits a placement of b's stream and returns its epoch.
func (h *harness) place(b stream.Broadcast) uint64 {
	h.t.Helper()
	epoch, err := h.store.Commit(h.t.Context(), store.Proposal{Limits: []capacity.Limit{{Limit: 1000}}, Placement: stream.Placement{
		Stream: b.Stream, Broadcast: b.ID, Worker: "w1", Device: "cpu", Boot: "b", Reserved: []stream.Reservation{{Resource: "cpu", Amount: 10}},
		State: stream.PlacementPlaced, BroadcastStart: b.StartedAt, CommittedAt: b.StartedAt,
	}})
	if err != nil {
		h.t.Fatal(err)
	}
	return epoch
}
