package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func ptr[T any](v T) *T { return &v }

const (
	testGPU   = "gpu-1"
	gpuPx     = int64(900_000_000)
	cpuPx     = int64(200_000_000)
	gpuMemory = int64(10 << 30)
)

// report puts a worker with a CPU and, with a class of gpu, a GeForce card.
func (h *harness) report(id, class string, edit ...func(*capacity.Report)) {
	h.t.Helper()
	r := capacity.Report{
		Worker: id, Boot: "b", Host: "h", Origin: "127.0.0.1:1", Ready: true, Time: time.Now(), GPAC: "2.4",
		ClockErrorMillis: ptr(1.0), Labels: map[string]string{"class": class},
		Devices: []capacity.Device{{ID: "cpu", Kind: capacity.CPU, Name: "A CPU", Usable: true, Codecs: []string{"h264"}, Capacity: ptr(cpuPx)}},
	}
	if class == "gpu" {
		r.NVML, r.SessionLimit = "ok", ptr(12)
		r.Devices = append(r.Devices, capacity.Device{
			ID: testGPU, Kind: capacity.GPU, Name: "A GPU", Usable: true, Codecs: []string{"h264", "hevc"}, Capacity: ptr(gpuPx),
			CapacitySource: "learned", SessionMax: ptr(gpuPx / 2), Other: ptr(int64(100_000_000)),
			Learned: []capacity.Learned{{Limit: "capacity", Value: gpuPx, Why: "25 of 30 fps", Until: time.Now().Add(time.Hour)}},
			GPU: &capacity.GPUState{
				Index: ptr(0), Architecture: ptr("ada"), SessionLimited: ptr(true), MemoryTotal: ptr(gpuMemory), MemoryUsed: ptr(int64(1 << 30)),
				EncoderCapacity: map[string]int{"h264": 90}, Sessions: []capacity.EncoderSession{{PID: 7, Codec: "h264", Width: 640, Height: 360, FPS: 30}},
				ClockReasons: []string{},
			},
		})
	}
	for _, e := range edit {
		e(&r)
	}
	if err := h.store.PutReport(h.t.Context(), r); err != nil {
		h.t.Fatal(err)
	}
}

// hold commits a placement that holds these resources, the device's first.
func (h *harness) hold(id, worker string, reserved ...stream.Reservation) {
	h.t.Helper()
	limits := make([]capacity.Limit, len(reserved))
	for i := range limits {
		limits[i] = capacity.Limit{Limit: 1 << 50}
	}
	if _, err := h.store.Commit(h.t.Context(), store.Proposal{Limits: limits, Placement: stream.Placement{
		Stream: id, Broadcast: "b1", Worker: worker, Device: reserved[0].Resource, Boot: "b", Reserved: reserved, State: stream.PlacementPlaced,
		Priority: 70, Dropped: []stream.VideoRendition{{Name: "1080p"}}, CommittedAt: time.Now(),
	}}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) explain(id string) wire.Explanation {
	h.t.Helper()
	return decoded[wire.Explanation](h.do("GET", "/v1/placement/explain?stream="+id, nil).want(http.StatusOK))
}

func TestStreamSaysWhereItMayRun(t *testing.T) {
	h := newHarness(t)
	plain := h.create("plain")
	if plain.Priority != 50 || plain.Degrade || plain.Require == nil || len(plain.Require) != 0 || plain.Prefer == nil {
		t.Errorf("defaults %+v", plain)
	}
	a := h.do("POST", "/v1/streams", `{"id":"demo","priority":0,"require":["device=gpu"],"prefer":["datacenter=ams1","class!=slow"],"degrade":true}`)
	created := decoded[wire.StreamWithKey](a.want(http.StatusCreated))
	if created.Priority != 0 || fmt.Sprint(created.Require, created.Prefer) != "[device=gpu] [datacenter=ams1 class!=slow]" || !created.Degrade {
		t.Errorf("created %+v", created)
	}
	s := decoded[wire.Stream](h.do("PATCH", "/v1/streams/demo", `{"priority":100}`).want(http.StatusOK))
	if s.Priority != 100 || len(s.Require) != 1 || len(s.Prefer) != 2 || !s.Degrade {
		t.Errorf("what was not named changed: %+v", s)
	}
	s = decoded[wire.Stream](h.do("PATCH", "/v1/streams/demo", `{"require":[],"prefer":null,"degrade":false}`).want(http.StatusOK))
	if len(s.Require) != 0 || len(s.Prefer) != 2 || s.Degrade {
		t.Errorf("an empty list clears and null leaves: %+v", s)
	}
	stored, err := h.store.GetStream(t.Context(), "demo")
	if err != nil || stored.Priority != 100 || len(stored.Require) != 0 || len(stored.Prefer) != 2 {
		t.Errorf("stored %+v, %v", stored, err)
	}
	events := h.eventsOf("demo", "stream.updated")
	if len(events) != 2 || !strings.Contains(events[0].Message, "priority 0 → 100") || !strings.Contains(events[1].Message, "require [device=gpu] → []") {
		t.Errorf("events %+v", events)
	}
}

func TestCodecsOfGPUs(t *testing.T) {
	h := newHarness(t)
	p := decoded[wire.Profile](h.do("PUT", "/v1/profiles/new", `{"video":[{"name":"v","codec":"hevc","width":640,"height":360,"bitrate":800000},
		{"name":"w","codec":"av1","width":640,"height":360,"bitrate":800000}]}`).want(http.StatusCreated))
	if *p.Video[0].Codec != "hevc" || *p.Video[1].Codec != "av1" {
		t.Errorf("%+v", p.Video)
	}
}

func TestWorkerTellsAllOfItsReport(t *testing.T) {
	h := newHarness(t)
	h.report("w1", "gpu")
	h.hold("demo", "w1", stream.Reservation{Resource: testGPU, Amount: 60_000_000}, stream.Reservation{Resource: "cpu", Amount: 30_000_000},
		stream.Reservation{Resource: capacity.MemoryResource(testGPU), Amount: 300 << 20}, stream.Reservation{Resource: capacity.ResourceSessions, Amount: 3})
	w := decoded[wire.Worker](h.do("GET", "/v1/workers/w1", nil).want(http.StatusOK))
	if w.Labels["class"] != "gpu" || *w.Nvml != "ok" || *w.SessionLimit != 12 || w.SessionsUsed != nil {
		t.Errorf("worker %+v", w)
	}
	g := w.Devices[1]
	if fmt.Sprint(g.Codecs) != "[h264 hevc]" || *g.SessionMaxPxS != gpuPx/2 || *g.OtherPxS != 100_000_000 || g.UsedPxS != nil ||
		len(g.Learned) != 1 || g.Learned[0].Why != "25 of 30 fps" || g.ReservedPxS != 60_000_000 || g.Streams["demo"] != 60_000_000 {
		t.Errorf("gpu %+v", g)
	}
	if s := g.Gpu; s == nil || *s.Architecture != "ada" || s.Driver != nil || (*s.EncoderCapacityPct)["h264"] != 90 ||
		len(*s.Sessions) != 1 || s.ClockReasons == nil || len(*s.ClockReasons) != 0 || s.PowerW != nil {
		t.Errorf("what the driver says: %+v", s)
	}
	type sum struct{ limit, reserved, young, held int64 }
	want := map[string]sum{
		"cpu":                             {cpuPx, 30_000_000, 30_000_000, 30_000_000},
		testGPU:                           {gpuPx - 100_000_000, 60_000_000, 60_000_000, 60_000_000},
		capacity.MemoryResource(testGPU):  {gpuMemory * 9 / 10, 300 << 20, 300 << 20, 1<<30 + 300<<20},
		string(capacity.ResourceSessions): {12, 3, 3, 3},
	}
	for _, r := range w.Resources {
		if got := (sum{*r.Limit, r.Reserved, r.Young, r.Held}); got != want[r.Resource] || r.Streams != 1 {
			t.Errorf("%s: %+v of %d streams, want %+v", r.Resource, got, r.Streams, want[r.Resource])
		}
		delete(want, r.Resource)
	}
	if len(want) != 0 || len(g.Resources) != 3 || g.Resources[1].Unit != "bytes" || g.Resources[2].Unit != "sessions" {
		t.Errorf("missing %v; of the GPU %+v", want, g.Resources)
	}
}

func TestStatusSaysWhatIsReservedAndWhyItWaits(t *testing.T) {
	h := newHarness(t)
	h.create("demo")
	since := time.Now().UTC().Truncate(time.Millisecond)
	b := stream.Broadcast{ID: "b1", Stream: "demo", State: stream.BroadcastLive, StartedAt: since, WaitingSince: &since, Reason: "no capacity: w1/cpu: needs 5"}
	if err := h.store.PutBroadcast(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	status := func() wire.StreamStatus {
		return decoded[wire.StreamStatus](h.do("GET", "/v1/streams/demo/status", nil).want(http.StatusOK))
	}
	s := status()
	if s.Broadcast.WaitingSince == nil || !s.Broadcast.WaitingSince.Equal(since) || *s.Broadcast.Reason != b.Reason || *s.LastError != b.Reason {
		t.Errorf("waiting: %+v", s.Broadcast)
	}
	b.WaitingSince, b.Reason = nil, ""
	if err := h.store.PutBroadcast(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	h.hold("demo", "w1", stream.Reservation{Resource: testGPU, Amount: 60}, stream.Reservation{Resource: "cpu", Amount: 30})
	if err := h.store.PutStatus(t.Context(), stream.RunStatus{Stream: "demo", Epoch: 1, Run: 2, State: stream.RunRunning, Device: "cpu"}); err != nil {
		t.Fatal(err)
	}
	s = status()
	if s.Broadcast.WaitingSince != nil || s.Broadcast.Reason != nil || *s.Run.Device != "cpu" {
		t.Errorf("placed: %+v %+v", s.Broadcast, s.Run)
	}
	if p := s.Placement; fmt.Sprint(p.Reserved) != "[{60 gpu-1 px/s} {30 cpu px/s}]" || fmt.Sprint(p.Dropped) != "[1080p]" || p.Priority != 70 {
		t.Errorf("placement %+v", p)
	}
}

func TestExplain(t *testing.T) {
	h := newHarness(t)
	h.do("POST", "/v1/streams", `{"id":"demo","profile":"1080p","prefer":["class=gpu"]}`).want(http.StatusCreated)
	if e := h.explain("demo"); e.Decision != nil || !strings.Contains(*e.Refusal, "no worker has reported") || len(e.Devices) != 0 {
		t.Errorf("without workers: %+v", e)
	}
	explain := func() wire.Explanation { // of reports that are new: an old one counts for nothing
		t.Helper()
		h.report("w1", "gpu")
		h.report("w2", "cpu")
		h.report("w3", "cpu", func(r *capacity.Report) { r.Drain = true })
		return h.explain("demo")
	}
	e := explain()
	if e.Decision == nil || e.Decision.Worker != "w1" || e.Decision.Device != testGPU || e.Refusal != nil || *e.Stream != "demo" {
		t.Fatalf("decision %+v, %v", e.Decision, e.Refusal)
	}
	if e.Policy.Order != "spread" || e.Policy.FailoverReserve != 0.1 || len(e.Costs) != 2 || e.Costs[1].Sessions != 4 {
		t.Errorf("policy %+v, costs %+v", e.Policy, e.Costs)
	}
	var found []string
	for _, d := range e.Devices {
		found = append(found, fmt.Sprintf("%d %s/%s %s", d.Rank, d.Worker, d.Device, d.Reason))
		if (d.Rank > 0) != (d.Score != nil) || d.Text == "" || len(d.Resources) == 0 || d.Current {
			t.Errorf("device %+v", d)
		}
	}
	if got := strings.Join(found, ", "); got != "1 w1/gpu-1 fits, 2 w1/cpu fits, 3 w2/cpu fits, 0 w3/cpu draining" {
		t.Errorf("devices: %s", got)
	}
	gpu := e.Devices[0]
	if fmt.Sprint(gpu.Score.Preferred) != "[class=gpu]" || len(gpu.Resources) != 4 || gpu.Resources[0].Needed != e.Costs[1].PxS {
		t.Errorf("the GPU %+v", gpu)
	}

	// What it holds itself is given back; what others hold is not.
	if err := h.store.PutBroadcast(t.Context(), stream.Broadcast{ID: "b1", Stream: "demo", State: stream.BroadcastLive, StartedAt: time.Now()}); err != nil {
		t.Fatal(err)
	}
	hold := func(id string) {
		h.hold(id, "w1", stream.Reservation{Resource: testGPU, Amount: gpuPx - 150_000_000})
	}
	hold("demo")
	e = explain()
	if d := e.Devices[0]; d.Device != testGPU || !d.Current || !d.Score.Stay || d.Resources[0].Held != 0 {
		t.Errorf("its own reservation counts against it: %+v", d)
	}
	hold("other")
	e = explain()
	for _, d := range e.Devices {
		if d.Device == testGPU && (d.Reason != "px" || d.Rank != 0 || !d.Current || !strings.Contains(d.Text, "are reserved")) {
			t.Errorf("a full GPU: %+v", d)
		}
	}
	if e.Decision == nil || e.Decision.Device != "cpu" {
		t.Errorf("no spill: %+v", e.Decision)
	}
	if p, err := h.store.Placement(t.Context(), "demo"); err != nil || p.Epoch != 1 {
		t.Errorf("explaining committed something: %+v, %v", p, err)
	}
}

func TestExplainOfRulesThatNothingSatisfies(t *testing.T) {
	h := newHarness(t)
	h.report("w1", "cpu")
	h.do("POST", "/v1/streams", `{"id":"demo","require":["datacenter=ams1"]}`).want(http.StatusCreated)
	e := h.explain("demo")
	if e.Decision != nil || len(e.Devices) != 1 || e.Devices[0].Reason != "rule" || !strings.Contains(e.Devices[0].Text, "datacenter=ams1") ||
		!strings.Contains(*e.Refusal, "datacenter=ams1") {
		t.Errorf("%+v", e)
	}
}

func TestSimulate(t *testing.T) {
	h := newHarness(t)
	simulate := func(body string) wire.Simulation {
		h.report("w1", "gpu")
		h.report("w2", "cpu")
		return decoded[wire.Simulation](h.do("POST", "/v1/placement/simulate", body).want(http.StatusOK))
	}
	s := simulate(`{"profile":"720p","count":2}`)
	if s.Placed != 2 || s.Refusal != nil || len(s.Placements) != 2 || s.Placements[0].Device != testGPU || len(s.Placements[0].Renditions) != 3 {
		t.Errorf("%+v", s)
	}
	s = simulate(`{"profile":"720p","count":1000}`)
	if s.Count != 1000 || s.Placed < 4 || s.Placed == 1000 || len(s.Placements) != s.Placed || s.Refusal == nil || !strings.Contains(*s.Refusal, "nvenc-sessions") {
		t.Fatalf("placed %d: %s", s.Placed, *s.Refusal)
	}
	on, sessions := map[string]int{}, int64(0)
	for _, p := range s.Placements {
		on[p.Worker+"/"+p.Device]++
		for _, r := range p.Reserved {
			if r.Resource == capacity.ResourceSessions {
				sessions += r.Amount
			}
		}
	}
	if len(on) != 3 || sessions > 12 {
		t.Errorf("placed on %v with %d encoder sessions", on, sessions)
	}
	if s.Next.Decision != nil || len(s.Next.Devices) != 3 || s.Next.Stream != nil {
		t.Errorf("the next: %+v", s.Next)
	}
	for _, d := range s.Next.Devices {
		if d.Rank != 0 || d.Resources[0].Held == 0 || d.Resources[0].Streams != on[d.Worker+"/"+d.Device]+map[bool]int{true: on["w1/gpu-1"]}[d.Worker == "w1" && d.Device == "cpu"] {
			t.Errorf("the next does not count those before: %+v", d)
		}
	}
	if s := simulate(`{"profile":"360p","count":3,"require":["device=gpu"],"prefer":["class=x"],"priority":0}`); s.Placed != 3 || s.Placements[2].Device != testGPU {
		t.Errorf("%+v", s)
	}
	degraded := simulate(`{"profile":"1080p","count":50,"require":["class=cpu"],"degrade":true}`)
	last := degraded.Placements[len(degraded.Placements)-1]
	if len(last.Dropped) == 0 || last.Dropped[0] != "1080p" || len(last.Renditions)+len(last.Dropped) != 4 {
		t.Errorf("not degraded: %+v", last)
	}
	if w := decoded[wire.Worker](h.do("GET", "/v1/workers/w1", nil).want(http.StatusOK)); w.Devices[0].ReservedPxS != 0 {
		t.Errorf("simulating committed something: %+v", w)
	}
}

// TestPolicyIsTheControllers: packing fills one device before the next.
func TestPolicyIsTheControllers(t *testing.T) {
	h := newHarnessWith(t, placement.Policy{Pack: true, Reserve: 0.5})
	h.hold("other", "w2", stream.Reservation{Resource: "cpu", Amount: 10_000_000})
	simulate := func(drain bool) wire.Simulation {
		h.report("w1", "cpu", func(r *capacity.Report) { r.Drain = drain })
		h.report("w2", "cpu")
		return decoded[wire.Simulation](h.do("POST", "/v1/placement/simulate", `{"profile":"360p","count":1}`).want(http.StatusOK))
	}
	s := simulate(false)
	if s.Next.Policy.Order != "pack" || s.Next.Policy.FailoverReserve != 0.5 || s.Placements[0].Worker != "w2" {
		t.Errorf("%+v on %+v", s.Next.Policy, s.Placements)
	}
	if r := s.Next.Devices[0].Resources[0]; *r.Limit != cpuPx || *r.Open != cpuPx/2 {
		t.Errorf("limit %d, open %d", *r.Limit, *r.Open)
	}
	// One worker alone keeps nothing for those that lose another.
	if s = simulate(true); s.Next.Policy.FailoverReserve != 0 || *s.Next.Devices[0].Resources[0].Open != cpuPx {
		t.Errorf("%+v", s.Next)
	}
}
