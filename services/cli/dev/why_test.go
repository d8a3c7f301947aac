package dev

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/api"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// A real api says of each state of the test picture why it can't be played.
func TestWhyThePictureCannotBePlayed(t *testing.T) {
	redis := testkit.NewRedis(t)
	st, err := store.Open(t.Context(), store.Options{StateURL: redis.URL(0), LiveURL: redis.URL(1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	server := api.New(api.Config{Listen: "127.0.0.1:0", AdminToken: "admin", InternalToken: "internal", Policy: placement.DefaultPolicy()}, api.Deps{Store: st})
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop := func() { _ = server.Stop(context.Background()) }
	defer stop()
	_, port, _ := net.SplitHostPort(server.Addr())
	d := &Dev{DataDir: t.TempDir(), adminToken: "admin"}
	d.Ports.API, _ = strconv.Atoi(port)
	page := errors.New("404 Not Found: no such stream")
	wants := func(step string, parts ...string) {
		t.Helper()
		got := d.whyNot(t.Context(), page)
		for _, part := range parts {
			if !strings.Contains(got, part) {
				t.Errorf("%s: %q is not in %q", step, part, got)
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	wants("no stream", "404", "demo")
	must(st.CreateStream(t.Context(), stream.Stream{ID: demoStream, Name: "x", Profile: DemoProfile, Grace: 15, HoldBack: 12, Window: 60}, "hash"))
	wants("no publisher", "nothing is published", d.logs(), "demo.log")
	now := time.Now().UTC()
	b := stream.Broadcast{ID: "b1", Stream: demoStream, State: stream.BroadcastLive, StartedAt: now}
	must(st.PutBroadcast(t.Context(), b))
	wants("no worker", "no worker has taken it: no capacity", "no worker")
	small := int64(1_000_000)
	clock := 1.0
	testkit.Eventually(t, 30*time.Second, "a small worker's refusal", func() error {
		// It is old soon.
		must(st.PutReport(t.Context(), capacity.Report{Worker: "dev", Boot: "b", Host: "h", Origin: "127.0.0.1:1", Ready: true, Time: now, ClockErrorMillis: &clock,
			Devices: []capacity.Device{{ID: "cpu", Kind: capacity.CPU, Name: "A CPU", Usable: true, Codecs: []string{"h264"}, Capacity: &small}}}))
		if got := d.whyNot(t.Context(), page); !strings.Contains(got, "no worker has taken it: no capacity: dev/cpu: needs ") || !strings.Contains(got, "px/s") {
			return errors.New(got)
		}
		return nil
	})
	b.WaitingSince, b.Reason = &now, "no capacity: dev/cpu: needs 60 px/s"
	must(st.PutBroadcast(t.Context(), b))
	wants("it waits", "no worker transcodes it: no capacity: dev/cpu: needs 60 px/s")
	b.WaitingSince, b.Reason = nil, ""
	must(st.PutBroadcast(t.Context(), b))
	epoch, err := st.Commit(t.Context(), store.Proposal{Limits: []capacity.Limit{{Limit: 100}}, Placement: stream.Placement{Stream: demoStream, Broadcast: "b1",
		Worker: "dev", Device: "cpu", Boot: "b", Reserved: []stream.Reservation{{Resource: "cpu", Amount: 1}}, State: stream.PlacementPlaced}})
	must(err)
	for state, want := range map[stream.RunState]string{
		stream.RunStarting: "has no whole segment yet",
		stream.RunBackoff:  "its transcode fails: GPAC exited with 1",
		stream.RunRunning:  "the router does not serve it: 404 Not Found",
	} {
		r := stream.RunStatus{Stream: demoStream, Epoch: epoch, State: state, UpdatedAt: now}
		if state == stream.RunBackoff {
			r.LastError = "GPAC exited with 1"
		}
		must(st.PutStatus(t.Context(), r))
		wants(string(state), want)
	}
	stop()
	wants("no api", "the api does not answer")
}
