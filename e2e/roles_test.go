package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// The roles as separate processes: a stream goes on with the api and Redis
// dead, even across a crash of GPAC, and is managed again when they are back.
func TestRolesApart(t *testing.T) {
	realTime(t)
	i := kit.Install(t)
	t.Run("metrics", func(t *testing.T) {
		for name, base := range i.Bases() {
			b, err := kit.FetchOK(base + "/metrics")
			if err != nil || contains(string(b), "process_cpu_seconds_total", "# HELP") != nil {
				t.Errorf("metrics of %s: %v: %.200s", name, err, b)
			}
		}
	})
	key := newStream(t, i.Dev, kit.StreamSpec{ID: "show", Grace: 5})
	pub := kit.Publish(t, kit.Picture{}, i.RTMPTarget("show", key))
	w := kit.WatchHLS(t, i.Master("show"), goesLive)
	w.WaitSegments(t, 7, goesLive)
	s := kit.StartPlayers(t)
	hls := s.Open(t, "hls.html", i.Master("show"))
	hls.WaitStarted(t, aWhile)

	t.Run("api and Redis dead", func(t *testing.T) {
		i.Role["api"].Kill()
		i.Redis.Kill()
		w.WaitSegments(t, 5, goesLive)
		i.KillGPAC()
		before := w.Newest()
		kit.Eventually(t, aWhile, "segments of a new GPAC", func() error {
			if n := w.Newest(); n < before+4 {
				return fmt.Errorf("newest %d, was %d", n, before)
			}
			return nil
		})
		if disc := w.Discontinuities(); len(disc) != 1 {
			t.Errorf("discontinuities before %v; one was due", disc)
		}
	})
	t.Run("api and Redis back", func(t *testing.T) {
		i.Redis.Restart()
		i.Restart("api")
		w.WaitSegments(t, 4, goesLive)
		waitState(t, i.Dev, "show", aWhile, "live")
		expectNoStall(t, hls.Play(t, 15*time.Second))
		if disc := w.Discontinuities(); len(disc) != 1 {
			t.Errorf("discontinuities before %v; one was due", disc)
		}
	})
	t.Run("end", func(t *testing.T) {
		stopPublisher(t, pub)
		w.WaitEnded(t, goesLive)
		w.Close()
		w.ExpectClean(t)
	})
	t.Run("worker killed", func(t *testing.T) {
		kit.Publish(t, kit.Picture{}, i.RTMPTarget("show", key))
		waitState(t, i.Dev, "show", goesLive, "live")
		i.Role["worker"].Signal(syscall.SIGKILL)
		<-i.Role["worker"].Done()
		kit.Eventually(t, 10*time.Second, "no GPAC without its worker", func() error {
			for _, p := range i.Dog.Left() {
				if strings.HasPrefix(p.Exe(), "gpac") {
					return fmt.Errorf("%v", p)
				}
			}
			return nil
		})
		if a := fetch(t, i.Master("show")); a.Status != http.StatusOK {
			t.Errorf("the master playlist without its origin: %d", a.Status)
		}
	})
	t.Run("SIGTERM drains", func(t *testing.T) {
		i.Restart("worker")
		for _, name := range []string{"router", "worker", "ingest", "api"} {
			p := i.Role[name]
			if err := p.Stop(syscall.SIGTERM, aWhile); err != nil {
				t.Errorf("%v", err)
			} else if p.ExitCode() != 0 {
				t.Errorf("%s after SIGTERM: %s\n%s", name, p.Exit(), kit.Tail(p.Log, 2000))
			}
		}
	})
}
