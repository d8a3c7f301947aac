package api

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestStreamLifecycle(t *testing.T) {
	h := newHarness(t)
	a := h.do("POST", "/v1/streams", map[string]any{"id": "demo", "name": "Demo ☺", "profile": "480p", "grace_seconds": 0}).want(http.StatusCreated)
	created := decoded[wire.StreamWithKey](a)
	if created.Profile != "480p" || created.Name != "Demo ☺" || created.GraceSeconds != 0 ||
		created.HoldBackSeconds != 12 || created.WindowSeconds != 60 || created.Version != 1 || created.Key == "" {
		t.Errorf("created %+v", created)
	}
	if a.header.Get("Location") != "/v1/streams/demo" || a.header.Get("ETag") != `"1"` {
		t.Errorf("headers %v", a.header)
	}
	a = h.do("PATCH", "/v1/streams/demo", map[string]any{"name": "Other", "disabled": true}, "If-Match", `"1"`).want(http.StatusOK)
	updated := decoded[wire.Stream](a)
	if updated.Name != "Other" || !updated.Disabled || updated.Profile != "480p" || updated.Version != 2 || a.header.Get("ETag") != `"2"` {
		t.Errorf("updated %+v, ETag %s", updated, a.header.Get("ETag"))
	}
	h.do("PATCH", "/v1/streams/demo", map[string]any{"name": "Late"}, "If-Match", `"1"`).problem(http.StatusPreconditionFailed)
	got := decoded[wire.Stream](h.do("GET", "/v1/streams/demo", nil).want(http.StatusOK))
	if got.Name != "Other" || !got.CreatedAt.Equal(created.CreatedAt) {
		t.Errorf("got %+v", got)
	}
	if s := decoded[wire.StreamStatus](h.do("GET", "/v1/streams/demo/status", nil).want(http.StatusOK)); s.State != wire.StreamStateDisabled {
		t.Errorf("state %s", s.State)
	}
	h.do("DELETE", "/v1/streams/demo", nil).want(http.StatusNoContent)
	h.do("GET", "/v1/streams/demo", nil).problem(http.StatusNotFound)
	again := h.create("demo")
	if again.Key == created.Key {
		t.Error("the same key twice")
	}
}

// TestKeyIsShownOnce: a stream's key is in the answers of creation and
// rotation, and neither it nor its hash is anywhere else, nor in the log.
func TestKeyIsShownOnce(t *testing.T) {
	h := newHarness(t)
	first := h.create("demo").Key
	second := decoded[wire.StreamKey](h.do("POST", "/v1/streams/demo/key", nil).want(http.StatusOK)).Key
	if first == second || len(second) < 20 {
		t.Fatalf("keys of %d and %d bytes, equal: %v", len(first), len(second), first == second)
	}
	h.publish("demo", first, "n1", "c1", false).problem(http.StatusForbidden)
	h.publish("demo", second, "n1", "c1", false).want(http.StatusOK)
	hash, err := h.store.StreamKeyHash(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	seen := h.logs.String()
	for _, path := range []string{"/v1/streams", "/v1/streams/demo", "/v1/streams/demo/status", "/v1/streams/demo/events"} {
		seen += string(h.do("GET", path, nil).want(http.StatusOK).body)
	}
	seen += string(h.do("PATCH", "/v1/streams/demo", `{}`).want(http.StatusOK).body)
	seen += string(send(t, "GET", h.url+"/metrics", nil).want(http.StatusOK).body)
	for _, secret := range []string{first, second, hash} {
		if strings.Contains(seen, secret) {
			t.Error("a stream key or its hash leaked")
		}
	}
}

func TestConditionalUpdatesRace(t *testing.T) {
	h := newHarness(t)
	h.create("demo")
	const writers = 16
	t.Run("one of many wins a version", func(t *testing.T) {
		statuses := together(writers, func(i int) int {
			return h.do("PATCH", "/v1/streams/demo", map[string]any{"name": fmt.Sprint("w", i)}, "If-Match", `"1"`).status
		})
		if statuses[http.StatusOK] != 1 || statuses[http.StatusPreconditionFailed] != writers-1 {
			t.Errorf("statuses %v", statuses)
		}
	})
	t.Run("no unconditional update is lost", func(t *testing.T) {
		bodies := []map[string]any{{"name": "n"}, {"disabled": true}, {"grace_seconds": 3}, {"hold_back_seconds": 7}, {"window_seconds": 90}, {"profile": "360p"}}
		statuses := together(len(bodies), func(i int) int {
			return h.do("PATCH", "/v1/streams/demo", bodies[i]).status
		})
		if statuses[http.StatusOK] != len(bodies) {
			t.Fatalf("statuses %v", statuses)
		}
		s := decoded[wire.Stream](h.do("GET", "/v1/streams/demo", nil).want(http.StatusOK))
		if s.Name != "n" || !s.Disabled || s.GraceSeconds != 3 || s.HoldBackSeconds != 7 || s.WindowSeconds != 90 || s.Profile != "360p" {
			t.Errorf("an update was lost: %+v", s)
		}
		if want := int64(2 + len(bodies)); s.Version != want {
			t.Errorf("version %d, want %d", s.Version, want)
		}
	})
	t.Run("one of many creates", func(t *testing.T) {
		statuses := together(writers, func(int) int {
			return h.do("POST", "/v1/streams", `{"id":"one"}`).status
		})
		if statuses[http.StatusCreated] != 1 || statuses[http.StatusConflict] != writers-1 {
			t.Errorf("statuses %v", statuses)
		}
	})
	t.Run("one of many creates a profile", func(t *testing.T) {
		statuses := together(writers, func(int) int {
			return h.do("PUT", "/v1/profiles/one", goodProfile, "If-None-Match", "*").status
		})
		if statuses[http.StatusCreated] != 1 || statuses[http.StatusPreconditionFailed] != writers-1 {
			t.Errorf("statuses %v", statuses)
		}
	})
}

// together runs do n times at once and counts what it returns.
func together(n int, do func(i int) int) map[int]int {
	var wg sync.WaitGroup
	var mu sync.Mutex
	start, counts := make(chan struct{}), map[int]int{}
	for i := range n {
		wg.Go(func() {
			<-start
			status := do(i)
			mu.Lock()
			defer mu.Unlock()
			counts[status]++
		})
	}
	close(start)
	wg.Wait()
	return counts
}

func TestProfiles(t *testing.T) {
	h := newHarness(t)
	a := h.do("PUT", "/v1/profiles/small", goodProfile).want(http.StatusCreated)
	p := decoded[wire.Profile](a)
	v := p.Video[0]
	if p.SegmentSeconds != 2 || p.BuiltIn || *v.Codec != "h264" || *v.KeyframeSeconds != 2 || *v.Preset != "veryfast" ||
		*v.Fps != 0 || *p.Audio[0].Codec != "aac" || *p.Audio[0].Channels != 2 {
		t.Errorf("defaults: %s", a.body)
	}
	h.do("PUT", "/v1/profiles/small", strings.Replace(goodProfile, "800000", "900000", 1)).want(http.StatusOK)
	h.do("PUT", "/v1/profiles/small", goodProfile, "If-Match", a.header.Get("ETag")).problem(http.StatusPreconditionFailed)
	h.do("PUT", "/v1/profiles/small", goodProfile, "If-None-Match", "*").problem(http.StatusPreconditionFailed)
	if got := decoded[wire.Profile](h.do("GET", "/v1/profiles/small", nil).want(http.StatusOK)); got.Video[0].Bitrate != 900000 || got.Version <= p.Version {
		t.Errorf("got %+v", got)
	}
	h.do("POST", "/v1/streams", `{"id":"demo","profile":"small"}`).want(http.StatusCreated)
	h.do("DELETE", "/v1/profiles/small", nil).problem(http.StatusConflict)
	h.do("DELETE", "/v1/streams/demo", nil).want(http.StatusNoContent)
	h.do("DELETE", "/v1/profiles/small", nil).want(http.StatusNoContent)
	h.do("GET", "/v1/profiles/small", nil).problem(http.StatusNotFound)
	for _, b := range stream.Builtins() {
		if got := decoded[wire.Profile](h.do("GET", "/v1/profiles/"+b.Name, nil).want(http.StatusOK)); !got.BuiltIn || len(got.Video) != len(b.Video) {
			t.Errorf("built-in %+v", got)
		}
	}
}

func TestPaging(t *testing.T) {
	h := newHarness(t)
	var want []string
	for i := range 7 {
		id := fmt.Sprintf("s%d", i)
		h.create(id)
		want = append(want, id)
	}
	for _, limit := range []int{1, 3, 7, 200} {
		var got []string
		next := ""
		for pages := 0; ; pages++ {
			p := decoded[wire.StreamPage](h.do("GET", fmt.Sprintf("/v1/streams?limit=%d&after=%s", limit, next), nil).want(http.StatusOK))
			if len(p.Items) > limit || pages > len(want) {
				t.Fatalf("limit %d: page %d of %d items", limit, pages, len(p.Items))
			}
			for _, s := range p.Items {
				got = append(got, s.ID)
			}
			if p.Next == nil {
				break
			}
			next = *p.Next
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("limit %d: %v", limit, got)
		}
	}
	profiles := 0
	for next := ""; ; {
		p := decoded[wire.ProfilePage](h.do("GET", "/v1/profiles?limit=2&after="+next, nil).want(http.StatusOK))
		profiles += len(p.Items)
		if p.Next == nil {
			break
		}
		next = *p.Next
	}
	if profiles != len(stream.Builtins()) {
		t.Errorf("%d profiles", profiles)
	}
	// Events: following never repeats and never misses.
	for i := range 5 {
		h.do("PATCH", "/v1/streams/s0", map[string]any{"name": fmt.Sprint(i)}).want(http.StatusOK)
	}
	var ids []string
	next := ""
	for {
		p := decoded[wire.EventPage](h.do("GET", "/v1/streams/s0/events?limit=2&after="+next, nil).want(http.StatusOK))
		if len(p.Items) == 0 {
			if p.Next == nil || *p.Next != next {
				t.Errorf("an empty page of events does not keep the place")
			}
			break
		}
		for _, e := range p.Items {
			ids = append(ids, e.ID)
		}
		next = *p.Next
	}
	seen := map[string]bool{}
	for _, id := range ids {
		seen[id] = true
	}
	if len(ids) != 6 || len(seen) != 6 {
		t.Errorf("events %v, want created and 5 updates once each", ids)
	}
}

func TestDrain(t *testing.T) {
	h := newHarness(t)
	h.do("PUT", "/v1/workers/w1/drain", nil).want(http.StatusNotFound)
	h.do("DELETE", "/v1/workers/w1/drain", nil).want(http.StatusNotFound)
	report := func() {
		if err := h.store.PutReport(t.Context(), capacity.Report{Worker: "w1", Boot: "b", Ready: true}); err != nil {
			t.Fatal(err)
		}
	}
	report()
	for range 2 {
		w := decoded[wire.Worker](h.do("PUT", "/v1/workers/w1/drain", nil).want(http.StatusOK))
		if !w.Drain || *w.DrainReason != "an operator asked for it" {
			t.Errorf("worker %+v", w)
		}
	}
	// It is in Redis state, so it is there after a restart of everything.
	h.redis.Kill()
	h.redis.Restart()
	report()
	if p := decoded[wire.WorkerPage](h.do("GET", "/v1/workers", nil).want(http.StatusOK)); !p.Items[0].Drain {
		t.Errorf("after kill -9 of Redis: %+v", p.Items)
	}
	for range 2 {
		h.do("DELETE", "/v1/workers/w1/drain", nil).want(http.StatusNoContent)
	}
	if w := decoded[wire.Worker](h.do("GET", "/v1/workers/w1", nil).want(http.StatusOK)); w.Drain || w.DrainReason != nil {
		t.Errorf("worker %+v", w)
	}
}

func TestWorkersAndDevices(t *testing.T) {
	h := newHarness(t)
	if a := h.do("GET", "/v1/workers", nil).want(http.StatusOK); strings.TrimSpace(string(a.body)) != `{"items":[]}` {
		t.Errorf("no workers: %s", a.body)
	}
	budget, cores := int64(100_000_000), 2
	for _, id := range []string{"w2", "w1"} {
		err := h.store.PutReport(t.Context(), capacity.Report{
			Worker: id, Boot: "b", Host: "h", Origin: "127.0.0.1:1", Ready: true, Time: time.Now(),
			Devices: []capacity.Device{{ID: "cpu", Kind: capacity.CPU, Usable: true, Capacity: &budget, Cores: &cores}, {ID: "gpu-1", Kind: capacity.GPU, Reason: "no NVENC"}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	p := decoded[wire.WorkerPage](h.do("GET", "/v1/workers", nil).want(http.StatusOK))
	if len(p.Items) != 2 || p.Items[0].ID != "w1" || len(p.Items[0].Devices) != 2 {
		t.Fatalf("workers %+v", p.Items)
	}
	cpu, gpu := p.Items[0].Devices[0], p.Items[0].Devices[1]
	if *cpu.CapacityPxS != budget || cpu.ReservedPxS != 0 || cpu.UsedPxS != nil || *cpu.Cores != 2 || gpu.CapacityPxS != nil || *gpu.Reason != "no NVENC" {
		t.Errorf("devices %+v %+v", cpu, gpu)
	}
	if w := decoded[wire.Worker](h.do("GET", "/v1/workers/w2", nil).want(http.StatusOK)); w.ID != "w2" {
		t.Errorf("worker %+v", w)
	}
	var devices []string
	for next := ""; ; {
		d := decoded[wire.DevicePage](h.do("GET", "/v1/devices?limit=3&after="+next, nil).want(http.StatusOK))
		for _, dev := range d.Items {
			devices = append(devices, dev.Worker+"/"+dev.ID)
		}
		if d.Next == nil {
			break
		}
		next = *d.Next
	}
	if fmt.Sprint(devices) != "[w1/cpu w1/gpu-1 w2/cpu w2/gpu-1]" {
		t.Errorf("devices %v", devices)
	}
}

// freeze stops a process while do runs: it accepts connections and answers none.
func freeze(t *testing.T, pid int, do func()) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}()
	do()
}

func TestHealthReadinessMetrics(t *testing.T) {
	h := newHarness(t)
	h.create("demo")
	h.do("GET", "/v1/streams/demo", nil).want(http.StatusOK)
	h.do("GET", "/v1/none", nil).want(http.StatusNotFound)
	for _, path := range []string{"/healthz", "/readyz"} {
		send(t, "GET", h.url+path, nil).want(http.StatusOK)
	}
	metrics := string(send(t, "GET", h.url+"/metrics", nil).want(http.StatusOK).body)
	for _, line := range []string{
		`http_request_duration_seconds_count{code="200",method="GET",route="/v1/streams/{id}"} 1`,
		`http_request_duration_seconds_count{code="201",method="POST",route="/v1/streams"} 1`,
		`http_request_duration_seconds_count{code="404",method="GET",route="none"} 1`,
		"go_goroutines", "process_cpu_seconds_total",
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
	freeze(t, h.redis.PID(), func() {
		send(t, "GET", h.url+"/readyz", nil).problem(http.StatusServiceUnavailable)
		h.do("GET", "/v1/streams/demo", nil).problem(http.StatusServiceUnavailable)
	})
	h.redis.Kill()
	send(t, "GET", h.url+"/readyz", nil).problem(http.StatusServiceUnavailable)
	send(t, "GET", h.url+"/healthz", nil).want(http.StatusOK)
	a := h.do("GET", "/v1/streams/demo", nil)
	a.problem(http.StatusServiceUnavailable)
	if a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	h.redis.Restart()
	testkit.Eventually(t, 20*time.Second, "the api to be ready again", func() error {
		if a := send(t, "GET", h.url+"/readyz", nil); a.status != http.StatusOK {
			return fmt.Errorf("status %d", a.status)
		}
		return nil
	})
	h.do("GET", "/v1/streams/demo", nil).want(http.StatusOK) // acknowledged, so it survived
}
