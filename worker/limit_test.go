package worker

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// A run whose directory outgrows its limit is ended, and the stream goes on as
// another run.
func TestRunLimit(t *testing.T) {
	const limit = 600 << 10 // some eight seconds of the ladder's 614 kbit/s
	r := newRig(t).start(func(c *Config) { c.RunLimit = limit })
	r.publish("demo")
	r.place("demo", r.w.Boot())
	r.waitSegments("demo", "low", 1)
	first := r.gpac()
	e := r.waitEvent("demo", "run.limit")
	if !strings.Contains(e.Message, "r1: its directory holds ") || !strings.Contains(e.Message, fmt.Sprintf("at most %d are allowed", limit)) || e.Level != "error" {
		t.Errorf("event %+v", e)
	}
	testkit.Eventually(t, deadline, "the end of the first run's GPAC", func() error {
		if err := syscall.Kill(first, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d: %v", first, err)
		}
		return nil
	})
	r.waitStatus("demo", "the second run", func(s stream.RunStatus) bool { return s.Run >= 2 && s.State == stream.RunRunning && s.Restarts >= 1 })
	testkit.Eventually(t, deadline, "segments of both runs in one playlist", func() error {
		code, list := r.get(r.w.Addr(), "/live/demo/low/index.m3u8")
		_, joined, ok := strings.Cut(list, "#EXT-X-DISCONTINUITY\n")
		if !ok || !strings.Contains(joined, "#EXTINF") {
			return fmt.Errorf("status %d:\n%s", code, list)
		}
		return nil
	})
}
