//go:build gpu

package device

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// TestRealCards is what `make test-gpu` runs, by hand, where there is a card: the
// probe, the self-test, and the benchmark's encodes on those with NVENC.
func TestRealCards(t *testing.T) {
	d := newDriver("")
	version, err := d.open()
	if err != nil {
		t.Fatalf("this test needs an NVIDIA card with its driver: %v", err)
	}
	defer d.close()
	n, err := d.count()
	if err != nil || n == 0 {
		t.Fatalf("this test needs an NVIDIA card: the driver lists %d, %v", n, err)
	}
	encoding := map[string]bool{} // by id: the table gives it engines
	for i := range n {
		c, err := d.card(i)
		if err != nil {
			t.Fatal(err)
		}
		state, err := c.state()
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(state)
		t.Logf("%s, %s, driver %s: %s", c.id, c.name, version, text)
		if !strings.HasPrefix(c.id, "gpu-") || c.name == "" || version == "" || state.MemoryTotal == nil || *state.MemoryTotal < 1<<30 || state.Architecture == nil {
			t.Errorf("%s: what every card tells is missing", c.id)
		}
		encoding[c.id] = engines(c.name, *state.Architecture, state.MIG != nil && *state.MIG) > 0
		if len(state.EncoderCapacity) > 0 != encoding[c.id] {
			t.Errorf("%s, %s: NVML's encoder capacity is %v, and the table says otherwise", c.id, c.name, state.EncoderCapacity)
		}
	}
	cfg := Config{CacheDir: t.TempDir(), CPUCapacity: 1e9}
	if !slices.Contains(slices.Collect(maps.Values(encoding)), true) {
		t.Log("none of them has NVENC: there is nothing to encode with")
		testManager(t, cfg, encoding)
		return
	}
	cfg.GPAC = testkit.Part(t, "DIONYSIA_GPAC", "gpac")
	if cfg.GPACVersion, err = gpac.Detect(t.Context(), cfg.GPAC); err != nil {
		t.Fatal(err)
	}
	testManager(t, cfg, encoding)
	testBenchmark(t, cfg, encoding)
}

func testManager(t *testing.T, cfg Config, encoding map[string]bool) {
	m, err := NewManager(cfg)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	m.Start(t.Context())
	defer m.Stop()
	for id, encodes := range encoding {
		got := await(t, m, id, "decided", func(d capacity.Device) bool {
			return d.Usable || d.Reason != "" && !strings.Contains(d.Reason, "not been proven yet")
		})
		t.Logf("%s after %s: usable %v, %s, codecs %v", id, time.Since(start).Round(time.Millisecond), got.Usable, got.Reason, got.Codecs)
		if got.Usable != encodes {
			t.Errorf("%s: usable %v (%s), want %v", id, got.Usable, got.Reason, encodes)
		}
	}
}

func testBenchmark(t *testing.T, cfg Config, encoding map[string]bool) {
	results, err := Benchmark(t.Context(), cfg, func(line string) { t.Log(line) })
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if encoding[r.Device] && (r.Reason != "" || r.Source != sourceCalibrated) {
			t.Errorf("%s: not measured", r)
		}
	}
}
