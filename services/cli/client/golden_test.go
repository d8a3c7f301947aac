package client

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

var update = flag.Bool("update", false, "write the golden files")

func ptr[T any](v T) *T { return &v }

const (
	geforce = "gpu-2f8b5c1e-0c3d-4a57-9e1b-5d6f7a8b9c0d"
	a100    = "gpu-77aa01b2-1111-4222-8333-944455566677"
)

// mixed is a fleet of everything: a GeForce card beside a CPU, a card without
// encoders, a worker that has measured nothing yet, one that is not ready.
func mixed() []capacity.Report {
	cpu := func(px *int64) capacity.Device {
		return capacity.Device{ID: "cpu", Kind: capacity.CPU, Name: "Some CPU", Usable: true, Codecs: []string{"h264"}, Capacity: px,
			CapacitySource: "calibrated", Cores: ptr(8), Load: ptr(0.25), Used: ptr(int64(40_000_000)), Other: ptr(int64(10_000_000))}
	}
	worker := func(id string, devices ...capacity.Device) capacity.Report {
		return capacity.Report{Worker: id, Boot: "b", Host: "host-" + id, Version: "dev", GPAC: "2.4", Origin: "10.0.0.1:8091", Ready: true,
			ClockErrorMillis: ptr(0.4), Labels: map[string]string{"datacenter": "ams1"}, Devices: devices, Time: time.Now()}
	}
	w1 := worker("w1", cpu(ptr(int64(400_000_000))), capacity.Device{
		ID: geforce, Kind: capacity.GPU, Name: "NVIDIA GeForce RTX 4090", Usable: true, Codecs: []string{"h264", "hevc", "av1"},
		Capacity: ptr(int64(2_146_590_720)), CapacitySource: "table", SessionMax: ptr(int64(1_341_619_200)),
		Learned: []capacity.Learned{{Limit: "memory", Value: 20 << 30, Why: "OpenEncodeSessionEx failed: out of memory", Until: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)}},
		GPU: &capacity.GPUState{Index: ptr(0), Architecture: ptr("ada"), Driver: ptr("570.86"), PCIBus: ptr("0000:01:00.0"), MIG: ptr(false),
			SessionLimited: ptr(true), MemoryTotal: ptr(int64(24 << 30)), MemoryUsed: ptr(int64(2 << 30)), EncoderUtilization: ptr(12),
			EncoderCapacity: map[string]int{"h264": 88, "av1": 100}, Encoders: ptr(2), SessionCount: ptr(1), AverageFPS: ptr(30), AverageLatency: ptr(4200),
			Sessions: []capacity.EncoderSession{{PID: 4711, Codec: "h264", Width: 1920, Height: 1080, FPS: 30}},
			Power:    ptr(81.4), Temperature: ptr(54), ClockReasons: []string{"sw_power_cap"}},
	})
	w1.NVML, w1.SessionLimit = "ok", ptr(8)
	w2 := worker("w2", cpu(ptr(int64(240_000_000))), capacity.Device{ID: a100, Kind: capacity.GPU, Name: "NVIDIA A100", Reason: "it has no NVENC", GPU: &capacity.GPUState{}})
	w2.NVML, w2.Labels = "ok", map[string]string{"class": "spare", "datacenter": "fra1"}
	w3 := worker("w3", capacity.Device{ID: "cpu", Kind: capacity.CPU, Name: "New CPU", Usable: true})
	w3.NVML, w3.ClockErrorMillis, w3.Labels = "no driver", nil, nil
	w4 := worker("w4")
	w4.Ready, w4.Reason = false, "GPAC can't be started"
	return []capacity.Report{w1, w2, w3, w4}
}

// report puts the fleet's reports, new again.
func (c *cluster) report(fleet []capacity.Report) {
	c.t.Helper()
	for _, r := range fleet {
		if err := c.store.PutReport(c.t.Context(), r); err != nil {
			c.t.Fatal(err)
		}
	}
}

// hold commits a placement that holds these resources, the device's first.
func (c *cluster) hold(id, worker string, reserved ...stream.Reservation) {
	c.t.Helper()
	limits := make([]capacity.Limit, len(reserved))
	for i := range limits {
		limits[i].Limit = 1 << 50
	}
	if _, err := c.store.Commit(c.t.Context(), store.Proposal{Limits: limits, Placement: stream.Placement{
		Stream: id, Broadcast: "b1", Worker: worker, Device: reserved[0].Resource, Boot: "b", Reserved: reserved, State: stream.PlacementPlaced,
		Priority: 60, Dropped: []stream.VideoRendition{{Name: "1080p"}, {Name: "720p"}}, CommittedAt: time.Now(),
	}}); err != nil {
		c.t.Fatal(err)
	}
}

var (
	times = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`)
	ages  = regexp.MustCompile(`[0-9.]+ s ago`)
)

func golden(t *testing.T, name, got string) {
	t.Helper()
	got = ages.ReplaceAllString(times.ReplaceAllString(got, "TIME"), "AGE ago")
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTables(t *testing.T) {
	c, fleet := newCluster(t), mixed()
	c.run("stream", "create", "demo", "--profile", "1080p", "--priority", "60", "--prefer", "datacenter=ams1", "--degrade")
	c.run("stream", "create", "choosy", "--require", "device=gpu", "--require", "datacenter=lon1")
	c.hold("demo", "w1", stream.Reservation{Resource: geforce, Amount: 109_065_600}, stream.Reservation{Resource: "cpu", Amount: 53_498_881},
		stream.Reservation{Resource: capacity.MemoryResource(geforce), Amount: 339 << 20}, stream.Reservation{Resource: capacity.ResourceSessions, Amount: 4})
	since := time.Now()
	for _, b := range []stream.Broadcast{
		{ID: "b1", Stream: "demo", State: stream.BroadcastLive, StartedAt: since},
		{ID: "b2", Stream: "choosy", State: stream.BroadcastLive, StartedAt: since, WaitingSince: &since, Reason: "no capacity: w1/cpu: does not satisfy device=gpu"},
	} {
		if err := c.store.PutBroadcast(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.store.PutStatus(t.Context(), stream.RunStatus{Stream: "demo", Epoch: 1, Run: 2, State: stream.RunRunning, Restarts: 1, Device: "cpu"}); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string]string{
		"stream_show":     "stream show demo",
		"status_placed":   "stream status demo",
		"status_waiting":  "stream status choosy",
		"worker_ls":       "worker ls",
		"worker_show":     "worker show w1",
		"worker_show_new": "worker show w3",
		"device_ls":       "device ls",
		"explain":         "place explain demo",
		"explain_refused": "place explain choosy",
		"simulate":        "place simulate --profile 720p --count 3",
		"simulate_full":   "place simulate --profile 1080p --count 1000 --require datacenter!=lon1 --degrade",
	} {
		t.Run(name, func(t *testing.T) {
			c := *c
			c.t = t
			c.report(fleet)
			golden(t, name, c.run(strings.Fields(args)...))
		})
	}
}

func TestTableOfAStreamInTheQueue(t *testing.T) {
	c := newCluster(t)
	in := store.IngestReport{Node: "in1", Boot: "b"}
	for id, waited := range map[string]time.Duration{"wall": time.Hour, "older": time.Minute, "small": time.Second, "vip": time.Second} {
		args := []string{"stream", "create", id, "--profile", "360p", "--require", "device=gpu"}
		if id == "vip" {
			args = append(args, "--priority", "90")
		}
		c.run(args...)
		since := time.Now().Add(-waited)
		b := stream.Broadcast{ID: "b1", Stream: id, State: stream.BroadcastLive, StartedAt: since, WaitingSince: &since, Reason: "no capacity"}
		if err := c.store.PutBroadcast(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		in.Paths = append(in.Paths, store.IngestPath{Stream: id, Session: "s1", Ready: true})
	}
	if err := c.store.PutIngestReport(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	c.report(mixed())
	golden(t, "explain_queue", c.run("place", "explain", "small"))
}

func TestPlaceCommands(t *testing.T) {
	c := newCluster(t)
	c.run("stream", "create", "demo")
	contains(t, c.run("place", "explain", "demo"), "no worker has reported")
	contains(t, c.run("place", "simulate", "--profile", "720p"), "0 of 1 streams", "stream 1: no capacity")
	c.report(mixed())
	e := parse[wire.Explanation](t, c.run("place", "explain", "demo", "-o", "json"))
	if e.Decision == nil || e.Decision.Device != geforce || len(e.Devices) != 6 {
		t.Errorf("%+v", e)
	}
	s := parse[wire.Simulation](t, c.run("place", "simulate", "--profile", "360p", "--count", "2", "--require", "device=cpu", "--prefer", "datacenter=fra1", "-o", "json"))
	if s.Placed != 2 || s.Placements[0].Worker != "w2" {
		t.Errorf("%+v", s)
	}
	contains(t, c.fails("place", "explain", "nothing"), `no stream "nothing"`)
	contains(t, c.fails("place", "simulate", "--profile", "none"), "profile there is no profile")
	contains(t, c.fails("place", "simulate", "--profile", "720p", "--count", "1001"), "count 1001 is not between 1 and 1000")
	contains(t, c.fails("place", "simulate", "--profile", "720p", "--count", "0", "--token-file", "/nonexistent"), "count 0 is not between 1 and 1000")
	contains(t, c.fails("place", "simulate", "--profile", "720p", "--count", "many"), "count")
	contains(t, c.fails("place", "simulate", "--profile", "720p", "--require", "gpu"), "require[0]", "key=value")
	contains(t, c.fails("place", "simulate"), "--profile")
}

func TestRulesOfStreams(t *testing.T) {
	c := newCluster(t)
	get := func(args ...string) wire.Stream { return parse[wire.Stream](t, c.run(append(args, "-o", "json")...)) }
	c.run("stream", "create", "demo", "--priority", "0", "--require", "device=gpu", "--require", "class!=slow", "--prefer", "datacenter=ams1", "--degrade")
	s := get("stream", "show", "demo")
	if s.Priority != 0 || strings.Join(s.Require, " ") != "device=gpu class!=slow" || strings.Join(s.Prefer, " ") != "datacenter=ams1" || !s.Degrade {
		t.Errorf("%+v", s)
	}
	if s = get("stream", "update", "demo", "--name", "x"); len(s.Require) != 2 || len(s.Prefer) != 1 || !s.Degrade {
		t.Errorf("what was not named changed: %+v", s)
	}
	if s = get("stream", "update", "demo", "--require", "", "--prefer=", "--no-degrade", "--priority", "99"); len(s.Require) != 0 || len(s.Prefer) != 0 || s.Degrade || s.Priority != 99 {
		t.Errorf("an empty value does not clear: %+v", s)
	}
	contains(t, c.fails("stream", "update", "demo", "--priority", "101"), "priority", "0 and 100")
	contains(t, c.fails("stream", "update", "demo", "--require", "device=gpu", "--require", "gpu"), "require[1]", "key=value")
}

// TestUnknownIsNotZero: what a worker does not know is a question mark in every
// table, and left out of JSON.
func TestUnknownIsNotZero(t *testing.T) {
	c := newCluster(t)
	c.report(mixed()[2:3])
	for _, args := range []string{"worker ls", "device ls", "worker show w3"} {
		contains(t, c.run(strings.Fields(args)...), unknown)
	}
	var w map[string]json.RawMessage
	if err := json.Unmarshal([]byte(c.run("worker", "show", "w3", "-o", "json")), &w); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"clock_error_ms", "session_limit", "sessions_used"} {
		if _, ok := w[field]; ok {
			t.Errorf("%s is %s", field, w[field])
		}
	}
	if bytes.Contains(w["devices"], []byte("capacity_px_s")) || bytes.Contains(w["resources"], []byte("limit")) {
		t.Errorf("devices %s, resources %s", w["devices"], w["resources"])
	}
}
