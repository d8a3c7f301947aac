package worker

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
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
