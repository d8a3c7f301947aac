package controller

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

// Twelve workers behind a dropped link cost one bound and not twelve, and one
// that answers stays. A turn that is over takes nobody for lost.
func TestSuspectsAreProbedAtOnce(t *testing.T) {
	probe := func(ctx context.Context, r capacity.Report) error {
		if r.Worker == "answers" {
			return ctx.Err()
		}
		<-ctx.Done()
		return ctx.Err()
	}
	c, err := New(Config{Holder: "test"}, nil, nil, probe, hclog.NewNullLogger(), prometheus.NewRegistry())
	must(t, err)
	now := time.Now()
	c.workers = map[string]*workerSeen{"fresh": {report: capacity.Report{Worker: "fresh"}, at: now}}
	for i := range 12 {
		id := fmt.Sprintf("hangs-%d", i)
		c.workers[id] = &workerSeen{report: capacity.Report{Worker: id}, at: now.Add(-time.Minute)}
	}
	c.workers["answers"] = &workerSeen{report: capacity.Report{Worker: "answers"}, at: now.Add(-time.Minute)}
	lost := func() (n int) {
		for _, w := range c.workers {
			if w.lost {
				n++
			}
		}
		return n
	}

	over, cancel := context.WithCancel(t.Context())
	cancel()
	c.suspect(over, now, false)
	if lost() != 0 {
		t.Fatalf("%d workers were taken for lost by a turn that is over", lost())
	}
	start := time.Now()
	c.suspect(t.Context(), now, false)
	if d := time.Since(start); d > 2*probeFor {
		t.Fatalf("the probes took %s", d)
	}
	if lost() != 12 || c.workers["answers"].lost || c.workers["fresh"].lost {
		t.Fatalf("%d of 12 workers are lost; the one that answers: %v, the one that reports: %v", lost(), c.workers["answers"].lost, c.workers["fresh"].lost)
	}
}
