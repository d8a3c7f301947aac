package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
	"github.com/dionysia-dev/dionysia/internal/testkit/nvmlstub"
)

// A GPU whose encoder the installed GPAC can't open takes no stream. One that an
// earlier boot has proven takes one, fails on its first use, and the stream goes on
// by x264 while hls.js and dash.js play on.
func TestGPUFallsBack(t *testing.T) {
	realTime(t)
	stub := nvmlstub.Build(t)
	card := nvmlstub.L4(1)
	stub.Set(card)
	gpu := nvmlstub.ID(1)
	i := kit.Install(t, "DIONYSIA_NVML_LIBRARY="+stub.Library(), "DIONYSIA_REBALANCE=60", "DIONYSIA_REBALANCE_AFTER=10s")

	t.Run("not proven", func(t *testing.T) {
		d := waitDevice(t, i, gpu, func(d kit.Device) bool { return !d.Usable && strings.Contains(d.Reason, "h264_nvenc") })
		t.Logf("the card is not used: %s", d.Reason)
		if len(d.Codecs) > 0 {
			t.Errorf("codecs %v without a proof", d.Codecs)
		}
		key := newStream(t, i.Dev, kit.StreamSpec{ID: "only", Grace: 1, Require: []string{"device=gpu"}})
		pub := kit.Publish(t, kit.Picture{}, i.RTMPTarget("only", key))
		kit.Eventually(t, aWhile, "the reason for waiting", func() error {
			st, err := i.Status("only")
			if err != nil || st.Broadcast == nil || !strings.Contains(st.Broadcast.Reason, gpu) || st.Placement != nil {
				return errors.Join(err, fmt.Errorf("%+v", st))
			}
			return nil
		})
		stopPublisher(t, pub)
	})

	// What an earlier boot would have left, had GPAC opened the encoder then.
	stub.Unload()
	i.Role["worker"].Signal(syscall.SIGTERM)
	<-i.Role["worker"].Done()
	proveBefore(t, filepath.Join(i.Dir, "cache", "device-"+gpu+".json"))
	i.Restart("worker")

	// 20 s, for two starts of GPAC, the first of which fails.
	key := newStream(t, i.Dev, kit.StreamSpec{ID: "show", Grace: 5, HoldBack: 20, Prefer: []string{"device=gpu"}})
	pub := kit.Publish(t, kit.Picture{}, i.RTMPTarget("show", key))
	w := kit.WatchHLS(t, i.Master("show"), goesLive)
	w.WaitSegments(t, 11, goesLive)
	if st, err := i.Status("show"); err != nil || st.Run == nil || st.Run.Device != "cpu" {
		t.Fatalf("without a card it runs on %+v, %v", st.Run, err)
	}
	s := kit.StartPlayers(t)
	hls, dash := s.Open(t, "hls.html", i.Master("show")), s.Open(t, "dash.html", i.MPD("show"))
	hls.WaitStarted(t, aWhile)
	dash.WaitStarted(t, aWhile)

	stub.Set(card)
	waitDevice(t, i, gpu, func(d kit.Device) bool { return d.Usable })
	kit.Eventually(t, 2*time.Minute, "the stream moved to the card and back", func() error {
		return i.FindEvent("show", "run.moved", gpu, "the CPU", "No codecid specified")
	})
	kit.Eventually(t, aWhile, "the stream on the CPU", func() error {
		st, err := i.Status("show")
		if err != nil || st.Run == nil || st.Run.State != "running" || st.Run.Device != "cpu" || st.Placement.Device != "cpu" || st.Placement.Epoch < 2 {
			return errors.Join(err, fmt.Errorf("%+v", st))
		}
		return nil
	})
	if d, err := i.Device(gpu); err != nil || d.Usable || d.Reserved != 0 || !strings.Contains(d.Reason, "No codecid specified") {
		t.Errorf("the card afterwards: %+v, %v", d, err)
	}
	expectNoStall(t, hls.Play(t, 25*time.Second)) // past the join
	r, err := dash.Report()
	if err != nil {
		t.Fatal(err)
	}
	expectNoStall(t, r)
	if disc := w.Discontinuities(); len(disc) != 1 {
		t.Errorf("discontinuities before %v; one was due", disc)
	}
	stopPublisher(t, pub)
	w.WaitEnded(t, goesLive)
	w.Close()
	w.ExpectClean(t)
}

func waitDevice(t *testing.T, i *kit.Installation, id string, ok func(kit.Device) bool) kit.Device {
	t.Helper()
	var d kit.Device
	kit.Eventually(t, aWhile, "a report on "+id, func() error {
		var err error
		if d, err = i.Device(id); err == nil && !ok(d) {
			err = fmt.Errorf("%+v", d)
		}
		return err
	})
	return d
}

// proveBefore turns the failed self-test in a worker's file of a device into one
// that passed.
func proveBefore(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatal(err)
	}
	tests, ok := record["self_test"].(map[string]any)
	if !ok {
		t.Fatalf("no self-test in %s", b)
	}
	tests["h264"] = map[string]any{"ok": true, "at": time.Now().UTC()}
	if b, err = json.Marshal(record); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
