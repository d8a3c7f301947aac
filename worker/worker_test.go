package worker

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestTwoRungsThenEnd(t *testing.T) {
	r := newRig(t).start()
	r.publish("demo")
	epoch := r.place("demo", r.w.Boot())
	r.waitSegments("demo", "low", 3)
	r.waitSegments("demo", "high", 3)
	r.waitSegments("demo", "aac", 3)
	s := r.waitStatus("demo", "a running status with all rates", func(s stream.RunStatus) bool {
		return s.State == stream.RunRunning && len(s.Renditions) == 3 && s.Renditions[0].FPS > 29.9 && s.Renditions[0].FPS < 30.05 && s.Renditions[0].Bitrate > 0
	})
	if s.Restarts != 0 {
		t.Errorf("%d restarts", s.Restarts)
	}
	pid := r.gpac()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(status), "NoNewPrivs:\t1") {
		t.Error("GPAC runs without no-new-privileges")
	}
	if os.Geteuid() == 0 && strings.Contains(string(status), "Uid:\t0") {
		t.Error("GPAC runs as root")
	}
	reports, err := r.store.Reports(context.Background())
	if err != nil || len(reports) != 1 || !reports[0].Ready || reports[0].ClockErrorMillis == nil || *reports[0].ClockErrorMillis > 200 {
		t.Errorf("reports %+v, %v", reports, err)
	}
	if err := r.store.SetEnding(context.Background(), "demo", epoch); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, deadline, "the placement's end", func() error {
		p, err := r.store.Placement(context.Background(), "demo")
		if err != nil {
			return err
		}
		if p.State != stream.PlacementEnded {
			return fmt.Errorf("state %s", p.State)
		}
		if left := gpacs(r.dir); len(left) > 0 {
			return fmt.Errorf("left running: %v", left)
		}
		return nil
	})
	if list := r.waitSegments("demo", "low", 3); !strings.Contains(list, "#EXT-X-ENDLIST") {
		t.Errorf("no ENDLIST in\n%s", list)
	}
}

func TestCrashAndStallAreRestarted(t *testing.T) {
	r := newRig(t).start()
	r.publish("demo")
	r.place("demo", r.w.Boot())
	r.waitSegments("demo", "low", 2)
	first := r.gpac()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.waitEvent("demo", "run.crashed")
	r.waitStatus("demo", "the second run's segments", func(s stream.RunStatus) bool { return s.Run == 2 && s.State == stream.RunRunning })
	if list := r.waitSegments("demo", "low", 4); !strings.Contains(list, "#EXT-X-DISCONTINUITY") {
		t.Errorf("no discontinuity in\n%s", list)
	}
	second := r.gpac()
	if err := syscall.Kill(second, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.waitEvent("demo", "run.stalled")
	r.waitStatus("demo", "the third run's segments", func(s stream.RunStatus) bool { return s.Run == 3 && s.State == stream.RunRunning && s.Restarts == 2 })
}

func TestPublisherReturns(t *testing.T) {
	r := newRig(t).start()
	r.place("demo", r.w.Boot()) // before anyone publishes
	r.waitStatus("demo", "waiting for the source", func(s stream.RunStatus) bool { return s.State == stream.RunWaiting })
	p := r.publish("demo")
	r.waitSegments("demo", "low", 2)
	p.Kill()
	r.waitStatus("demo", "waiting again", func(s stream.RunStatus) bool { return s.State == stream.RunWaiting })
	// Another size and rate: another ladder, the same playlists.
	r.publish("demo", picture("320x240", "25", false)...)
	s := r.waitStatus("demo", "the second run", func(s stream.RunStatus) bool { return s.Run == 2 && s.State == stream.RunRunning })
	if len(s.Renditions) != 1 || s.Renditions[0].Width != 192 || s.Renditions[0].Height != 144 {
		t.Errorf("renditions %+v", s.Renditions)
	}
}

func TestRefusesWhatCantBeTranscoded(t *testing.T) {
	r := newRig(t).start()
	r.publish("g711", append(picture("320x240", "25", false)[:5:5], "-f", "lavfi", "-i", "sine=sample_rate=8000", "-c:v", "libx264", "-preset", "ultrafast",
		"-pix_fmt", "yuv420p", "-g", "25", "-c:a", "pcm_mulaw", "-f", "rtsp")...)
	r.place("g711", r.w.Boot())
	s := r.waitStatus("g711", "a refusal", func(s stream.RunStatus) bool { return s.State == stream.RunRefused })
	if !strings.Contains(s.LastError, "G711") {
		t.Errorf("last error %q", s.LastError)
	}
	if e := r.waitEvent("g711", "run.refused"); !strings.Contains(e.Message, "AAC, Opus and MP3") {
		t.Errorf("event %+v", e)
	}
	if left := gpacs(r.dir); len(left) > 0 {
		t.Errorf("running: %v", left)
	}
}

func TestHigherEpochFences(t *testing.T) {
	r := newRig(t).start()
	r.publish("demo")
	r.place("demo", r.w.Boot())
	r.waitSegments("demo", "low", 1)
	// Another worker has it now.
	r.place("demo", "other-boot", func(p *stream.Placement) { p.Worker = "w2" })
	testkit.Eventually(t, deadline, "GPAC's end", func() error {
		if left := gpacs(r.dir); len(left) > 0 {
			return fmt.Errorf("running: %v", left)
		}
		return nil
	})
	testkit.Eventually(t, deadline, "410 for the manifest", func() error {
		if code, body := r.get(r.w.Addr(), "/live/demo/low/index.m3u8"); code != 410 {
			return fmt.Errorf("status %d: %.200s", code, body)
		}
		return nil
	})
}

func TestForeignBootIsLeftAlone(t *testing.T) {
	r := newRig(t).start()
	r.publish("demo")
	r.place("demo", "an-earlier-boot")
	ours := r.place("other", r.w.Boot())
	testkit.Eventually(t, deadline, "our own placement", func() error {
		if r.w.Runs().Epochs()["other"] != ours {
			return fmt.Errorf("%v", r.w.Runs().Epochs())
		}
		return nil
	})
	if e, ok := r.w.Runs().Epochs()["demo"]; ok {
		t.Errorf("runs epoch %d of an earlier start", e)
	}
}

func TestRedisAwayGoesOn(t *testing.T) {
	r := newRig(t).start()
	r.publish("demo")
	r.place("demo", r.w.Boot())
	r.waitSegments("demo", "low", 2)
	r.redis.Kill()
	pid := r.gpac()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.waitSegments("demo", "low", 5)
	r.redis.Restart()
	r.waitStatus("demo", "the second run", func(s stream.RunStatus) bool { return s.Run == 2 && time.Since(s.UpdatedAt) < 5*time.Second })
}
