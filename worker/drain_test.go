package worker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// long is a drain that no test waits out.
const long = 10 * time.Minute

// holding starts a worker with a placement that waits for its publisher.
func (r *rig) holding(drain time.Duration) {
	r.t.Helper()
	r.start(func(c *Config) { c.DrainTimeout = drain })
	r.place("demo", r.w.Boot())
	r.waitStatus("demo", "the wait for the source", func(s stream.RunStatus) bool { return s.State == stream.RunWaiting })
}

// other reports a second worker until the test ends.
func (r *rig) other(change func(*capacity.Report)) {
	r.t.Helper()
	report := capacity.Report{Worker: "w2", Boot: "b2", Ready: true}
	change(&report)
	if err := r.store.PutReport(r.t.Context(), report); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		for sleepFor := time.NewTicker(200 * time.Millisecond); ; {
			select {
			case <-r.t.Context().Done():
				sleepFor.Stop()
				return
			case <-sleepFor.C:
				_ = r.store.PutReport(r.t.Context(), report)
			}
		}
	}()
}

// stop stops the worker and returns what is closed when it has.
func (r *rig) stop() chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.w.Stop(context.Background())
	}()
	return done
}

func (r *rig) waitStopped(done chan struct{}, what string) {
	r.t.Helper()
	select {
	case <-done:
	case <-time.After(deadline):
		r.t.Fatal("still running: " + what)
	}
}

func TestStopWaitsUntilOthersHaveTheStreams(t *testing.T) {
	r := newRig(t)
	r.holding(long)
	r.other(func(*capacity.Report) {})
	done := r.stop()
	testkit.Eventually(t, deadline, "a report that it drains", func() error {
		reports, err := r.store.Reports(t.Context())
		if err != nil {
			return err
		}
		for _, seen := range reports {
			if seen.Worker == "w1" && seen.Draining() == "it stops" {
				return nil
			}
		}
		return errors.New("not yet")
	})
	// It serves on, and its Consul check passes, until the stream has moved.
	if code, body := r.get(r.w.Addr(), "/readyz"); code != http.StatusOK {
		t.Errorf("while it drains: %d %s", code, body)
	}
	select {
	case <-done:
		t.Fatal("it stopped before its stream had moved")
	default:
	}
	r.place("demo", "b2", func(p *stream.Placement) { p.Worker = "w2" })
	r.waitStopped(done, "its stream has moved")
}

// losing leaves out of some answers the reports that are lost.
type losing struct {
	Store
	lost  func(n int, own bool) bool // of the nth answer from 1
	mu    sync.Mutex
	asked int
}

func (s *losing) Reports(ctx context.Context) ([]store.ReportSeen, error) {
	s.mu.Lock()
	s.asked++
	n := s.asked
	s.mu.Unlock()
	list, err := s.Store.Reports(ctx)
	return slices.DeleteFunc(list, func(r store.ReportSeen) bool { return s.lost(n, r.Worker == "w1") }), err
}

func (s *losing) answered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// Reports that are missing because Redis lost them don't say that nobody is there who
// takes the streams.
func TestStopWaitsThoughReportsAreLost(t *testing.T) {
	for name, lost := range map[string]func(n int, own bool) bool{
		"while it drains":                func(n int, own bool) bool { return n > 2 && (n <= 4 || n <= 6 && !own) },
		"before, and its own comes back": func(n int, own bool) bool { return n <= 4 && !own },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.taker = deadline // on a busy machine the answers that lack reports take their time
			var reports *losing
			r.wrap = func(s Store) Store {
				reports = &losing{Store: s, lost: lost}
				return reports
			}
			r.holding(long)
			r.other(func(*capacity.Report) {})
			done := r.stop()
			testkit.Eventually(t, deadline, "reports that are there again", func() error {
				select {
				case <-done:
					t.Fatal("it stopped before its stream had moved")
				default:
				}
				if n := reports.answered(); n < 8 {
					return fmt.Errorf("asked %d times", n)
				}
				return nil
			})
			r.place("demo", "b2", func(p *stream.Placement) { p.Worker = "w2" })
			r.waitStopped(done, "its stream has moved")
		})
	}
}

// TestStopServesWhatWasPublic shows that segments of a stream which has moved can
// be fetched while its worker stops, whether it moves then or has done so before.
func TestStopServesWhatWasPublic(t *testing.T) {
	for name, c := range map[string]struct {
		before bool
		linger time.Duration
	}{
		"moved as it stops":      {before: false, linger: 3 * time.Second},
		"moved before it stops":  {before: true, linger: 3 * time.Second},
		"without lingering":      {before: true},
		"bounded by the drain's": {before: true, linger: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			drain := 5 * time.Second
			if c.linger < drain {
				drain = long
			}
			r.start(func(cfg *Config) { cfg.DrainTimeout, cfg.Linger = drain, c.linger })
			r.publish("demo")
			r.place("demo", r.w.Boot())
			_, uri, ok := strings.Cut(r.waitSegments("demo", "low", 2), "\n../") // the first segment
			if !ok {
				t.Fatal("the playlist lists nothing")
			}
			uri, _, _ = strings.Cut(uri, "\n")
			path := "/live/demo/" + uri
			r.other(func(*capacity.Report) {})
			move := func() {
				r.place("demo", "b2", func(p *stream.Placement) { p.Worker = "w2" })
				testkit.Eventually(t, deadline, "the run here ending", func() error {
					if code, _ := r.get(r.w.Addr(), "/live/demo/low/index.m3u8"); code != http.StatusGone || len(r.w.Runs().Epochs()) > 0 {
						return fmt.Errorf("the playlist answers %d", code)
					}
					return nil
				})
			}
			if c.before {
				move()
			}
			began := time.Now()
			done := r.stop()
			if !c.before {
				move()
			}
			fetched := 0
			for stopped := false; !stopped; {
				select {
				case <-done:
					stopped = true
				case <-time.After(100 * time.Millisecond):
					if code, _ := r.get(r.w.Addr(), path); code == http.StatusOK {
						fetched++
					}
				}
			}
			took := time.Since(began)
			t.Logf("stopped after %v, %s was fetched %d times", took, uri, fetched)
			switch {
			case c.linger == 0 && took > 3*time.Second:
				t.Error("it lingers")
			case c.linger > 0 && (fetched < 15 || took < min(c.linger, drain) || took > 30*time.Second):
				t.Error("it does not serve on for as long as it should")
			}
		})
	}
}

func TestStopWaitsForNobody(t *testing.T) {
	for name, other := range map[string]func(*rig){
		"alone":                     func(*rig) {},
		"another that is not ready": func(r *rig) { r.other(func(c *capacity.Report) { c.Ready = false }) },
		"another that stops":        func(r *rig) { r.other(func(c *capacity.Report) { c.Drain = true }) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.holding(long)
			other(r)
			r.waitStopped(r.stop(), "there is no other worker")
		})
	}
	t.Run("no longer than it may", func(t *testing.T) {
		r := newRig(t)
		r.holding(time.Second)
		r.other(func(*capacity.Report) {})
		r.waitStopped(r.stop(), "nobody took its stream")
	})
}
