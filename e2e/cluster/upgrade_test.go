package cluster_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// release is what the program that replaces the other one calls itself.
const release = "9.9.9-next"

// stagger is enough for a worker to hand over, linger and be ready again.
const stagger = "35s"

// upgrade brings every job to another version, in the order of
// docs/operations/upgrade.md.
func (a *audience) upgrade(t *testing.T) {
	next := filepath.Join(a.c.Dir, "bin", "dionysia-"+release)
	build := exec.Command("go", "build", "-ldflags", "-X github.com/dionysia-dev/dionysia/services/version.release="+release, "-o", next, ".")
	build.Dir = kit.RepoRoot()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the next version: %v\n%s", err, out)
	}
	program := "-var=dionysia=" + next
	t.Run("api and router", func(t *testing.T) {
		a.viewer(t)
		a.through(t, 0, func() {
			a.roll(t, "api", 1, program)
			a.roll(t, "router", 2, program)
		})
	})
	t.Run("worker", func(t *testing.T) {
		before := a.c.Placement(t, a.stream, "")
		a.viewer(t)
		// The stream moves once or twice; hold_back outlasts one move for certain.
		a.through(t, 4*time.Second, func() { a.roll(t, "worker", 2, program, "-var=stagger="+stagger) })
		if after := a.c.Placement(t, a.stream, ""); after.Epoch <= before.Epoch {
			t.Errorf("epoch %d after %d: its worker was not replaced", after.Epoch, before.Epoch)
		}
	})
	t.Run("ingest", func(t *testing.T) {
		before := a.broadcast(t)
		a.viewer(t)
		// The publisher's time to connect again, and a run's to begin, less hold_back.
		a.through(t, 5*time.Second, func() { a.roll(t, "ingest", 1, program) })
		if after := a.broadcast(t); after != before {
			t.Errorf("broadcast %s became %s: the publisher came back within its grace", before, after)
		}
	})
	t.Run("edge and redis", func(t *testing.T) {
		before := a.c.Placement(t, a.stream, "")
		a.through(t, 0, func() {
			a.roll(t, "edge", 2, "-var=cache_mib=300")
			a.roll(t, "redis", 1, "-var=memory_mib=144")
		})
		if after := a.c.Placement(t, a.stream, ""); after != before {
			t.Errorf("%+v became %+v: a stream goes on while Redis is away", before, after)
		}
	})
	a.versions(t)
}

// roll runs a job anew and waits until nothing of its former version is left.
func (a *audience) roll(t *testing.T, job string, count int, flags ...string) {
	t.Helper()
	began := time.Now()
	a.c.Run(t, append([]string{"job", "run", job}, flags...)...)
	a.c.WaitNewest(t, job, count, longer)
	for service, n := range services[job] {
		a.c.passes(t, service, n, moves)
	}
	t.Logf("%s runs in its next version after %.1f s", job, time.Since(began).Seconds())
}

// services are what Consul has of each job here.
var services = map[string]map[string]int{
	"api": {"api": 1}, "router": {"router": 2}, "worker": {"worker": 2, "origin": 2}, "ingest": {"ingest": 1, "mediamtx": 1},
	"edge": {"edge": 2}, "redis": {"redis-state": 1, "redis-live": 1},
}

// broadcast returns the id of the stream's, once it is live.
func (a *audience) broadcast(t *testing.T) string {
	t.Helper()
	id := ""
	kit.Eventually(t, moves, "the broadcast being live", func() error {
		s, err := a.c.Status(a.stream)
		if err != nil {
			return err
		}
		if s.Broadcast == nil || s.Session == nil || s.State != "live" {
			return fmt.Errorf("%s, broadcast %+v, session %+v", s.State, s.Broadcast, s.Session)
		}
		id = s.Broadcast.ID
		return nil
	})
	return id
}

var build = regexp.MustCompile(`(?m)^dionysia_build_info\{version="([^"]*)"\} 1$`)

// versions asks every process of the roles which version it is.
func (a *audience) versions(t *testing.T) {
	c := a.c
	type at struct{ role, host, addr string }
	var all []at
	for _, role := range []string{"api", "router", "worker"} {
		for _, i := range c.Passing(t, role) {
			addr := i.Addr
			if i.Admin != "" {
				addr = i.Admin
			}
			all = append(all, at{role, i.Host, addr})
		}
	}
	agent, _, err := c.Nomad(t).Allocations().Info(c.Alloc(t, "ingest", "ingest").ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range agent.AllocatedResources.Shared.Ports {
		if p.Label == "agent" {
			all = append(all, at{"ingest", "ingest", fmt.Sprintf("127.0.0.1:%d", p.Value)})
		}
	}
	if len(all) != 6 {
		t.Errorf("these processes: %v", all)
	}
	for _, p := range all {
		b, err := kit.FetchOK("http://" + c.Reach(t, p.host, p.addr) + "/metrics")
		if err != nil {
			t.Errorf("%v: %v", p, err)
			continue
		}
		if m := build.FindSubmatch(b); m == nil || string(m[1]) != release {
			t.Errorf("%v says it is %q", p, m)
		}
	}
	workers, err := c.Workers()
	if err != nil || len(workers) != 2 || slices.ContainsFunc(workers, func(w kit.Worker) bool { return w.Version != release }) {
		t.Errorf("the workers say %+v, %v", workers, err)
	}
}
