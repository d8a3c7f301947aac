package worker

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/internal/testkit/nvmlstub"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// provedBefore leaves a self-test of h264 in the worker's cache, as a start of it
// with the same card, driver and GPAC would have: GPAC's libavcodec may have been
// replaced since.
func (r *rig) provedBefore(card nvmlstub.Card) {
	r.t.Helper()
	cfg := r.config()
	version, err := gpac.Detect(r.t.Context(), cfg.GPAC)
	if err != nil {
		r.t.Fatal(err)
	}
	id := strings.ToLower(card.UUID)
	record := fmt.Sprintf(`{"version":2,"device":%q,"hardware":%q,"driver":"570.86.15","gpac":%q,"self_test":{"h264":{"ok":true,"at":"2026-01-01T00:00:00Z"}}}`,
		id, card.Name, version.Text)
	if err := os.MkdirAll(cfg.CacheDir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.CacheDir, "device-"+id+".json"), []byte(record), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// waitDevice waits until the worker's report has a device that passes check.
func (r *rig) waitDevice(id, what string, check func(capacity.Device) bool) capacity.Device {
	r.t.Helper()
	var d capacity.Device
	testkit.Eventually(r.t, deadline, id+": "+what, func() error {
		report := r.w.Report()
		var ok bool
		if d, ok = report.Device(id); !ok || !check(d) {
			return fmt.Errorf("it is %+v; NVML %q", d, report.NVML)
		}
		return nil
	})
	return d
}

// A card that was proven before fails when it is first used: GPAC 1.0.1 has no
// NVENC. The stream, which was on the CPU before, goes on there; its playlists
// go on too.
func TestACardThatFailsOnFirstUse(t *testing.T) {
	stub := nvmlstub.Build(t)
	card := nvmlstub.L4(1)
	delete(card.Values, "capacity_hevc")
	delete(card.Values, "capacity_av1")
	stub.Set(card)
	gpu := nvmlstub.ID(1)
	r := newRig(t)
	r.provedBefore(card)
	r.start(func(c *Config) { c.NVML, c.Labels = stub.Library(), map[string]string{"class": "gpu"} })
	d := r.waitDevice(gpu, "usable", func(d capacity.Device) bool { return d.Usable && d.Capacity != nil })
	if strings.Join(d.Codecs, " ") != "h264" || r.w.Report().Labels["class"] != "gpu" {
		t.Errorf("%+v", r.w.Report())
	}

	r.publish("demo")
	r.place("demo", r.w.Boot())
	r.waitSegments("demo", "high", 2)
	if s := r.waitStatus("demo", "a running stream", func(s stream.RunStatus) bool { return s.State == stream.RunRunning }); s.Device != "cpu" {
		t.Errorf("it runs on %s", s.Device)
	}

	epoch := r.place("demo", r.w.Boot(), func(p *stream.Placement) {
		p.Device, p.Reserved = gpu, []stream.Reservation{{Resource: gpu, Amount: 1}}
	})
	s := r.waitStatus("demo", "the stream on the CPU again", func(s stream.RunStatus) bool {
		return s.State == stream.RunRunning && s.Epoch == epoch && s.Device == "cpu"
	})
	if s.Run < 2 || s.Restarts < 1 {
		t.Errorf("%+v", s)
	}
	var list string
	testkit.Eventually(t, deadline, "segments of the second run", func() error {
		if _, list = r.get(r.w.Addr(), "/live/demo/high/index.m3u8"); !strings.Contains(list, "../seg/e2r") {
			return fmt.Errorf("%s", list)
		}
		return nil
	})
	if !strings.Contains(list, "../seg/e1r1/high/1.m4s") || strings.Contains(list, "e2r1/") || !strings.Contains(list, "#EXT-X-DISCONTINUITY\n") ||
		!strings.Contains(list, "#EXT-X-MEDIA-SEQUENCE:1\n") {
		t.Errorf("the playlist does not go on:\n%s", list)
	}

	if e := r.waitEvent("demo", "run.moved"); e.Level != "warn" || !strings.Contains(e.Message, "NVIDIA L4 ("+gpu+") → the CPU: its encoder failed: [FFEnc] No codecid specified") {
		t.Errorf("%+v", e)
	}
	ctx := context.Background()
	p, err := r.store.Placement(ctx, "demo")
	if err != nil || p.Device != "cpu" || len(p.Reserved) != 1 || p.Reserved[0].Resource != "cpu" || p.Epoch != epoch {
		t.Errorf("the placement is %+v, %v", p, err)
	}
	ledger, err := r.store.Ledger(ctx, "w1")
	if err != nil || len(ledger[gpu]) != 0 || ledger["cpu"]["demo"].Amount != p.Reserved[0].Amount || p.Reserved[0].Amount < 1000 {
		t.Errorf("the ledger is %+v, %v", ledger, err)
	}
	if d := r.waitDevice(gpu, "out of use", func(d capacity.Device) bool { return !d.Usable }); !strings.Contains(d.Reason, "No codecid specified") || len(d.Learned) != 1 {
		t.Errorf("%+v", d)
	}
}
