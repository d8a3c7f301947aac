package cluster_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/e2e/clusterkit"
	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// killTimeout is the worker's, of its job file.
const killTimeout = 70 * time.Second

// drain drains the node whose worker has the stream, and lets it return.
func (a *audience) drain(t *testing.T) {
	c := a.c
	first := c.Placement(t, a.stream, "")
	a.viewer(t)
	node, alloc := c.Node(t, first.Worker), c.Alloc(t, "worker", first.Worker)
	a.through(t, 0, func() {
		began := time.Now()
		c.NomadCommand(t, "node", "drain", "-enable", "-yes", "-detach", "-deadline", "10m", node)
		if second := a.moved(t, first); second.Worker == first.Worker {
			t.Errorf("it is still on %s", second.Worker)
		}
		t.Logf("handover: %.1f s from the command to the first segment", time.Since(began).Seconds())
	})
	a.ended(t, alloc.ID)
	c.NomadCommand(t, "node", "drain", "-disable", "-yes", node)
	for _, service := range []string{"worker", "origin", "edge"} {
		c.passes(t, service, 2, moves)
	}
	kit.Eventually(t, aWhile, "the worker that returned taking streams", func() error {
		list, err := c.Workers()
		if err != nil {
			return err
		}
		for _, w := range list {
			if w.ID == first.Worker && w.Ready {
				return nil
			}
		}
		return fmt.Errorf("%+v", list)
	})
	a.expectClean(t)
}

// ended waits until a drained worker's allocation is complete, and checks that the
// worker ended by itself within kill_timeout.
func (a *audience) ended(t *testing.T, alloc string) {
	t.Helper()
	var got *api.Allocation
	kit.Eventually(t, longer, "the drained worker's allocation being complete", func() error {
		var err error
		got, _, err = a.c.Nomad(t).Allocations().Info(alloc, nil)
		if err != nil {
			return err
		}
		if got.ClientStatus != api.AllocClientStatusComplete {
			return fmt.Errorf("it is %s", got.ClientStatus)
		}
		return nil
	})
	var told, over *api.TaskEvent
	for _, e := range got.TaskStates["worker"].Events {
		switch e.Type {
		case api.TaskKilling:
			told = e
		case api.TaskTerminated:
			over = e
		}
	}
	if told == nil || over == nil {
		t.Fatalf("its events: %+v", got.TaskStates["worker"].Events)
	}
	took := time.Duration(over.Time - told.Time)
	t.Logf("the drained worker ended %.1f s after it was told to, exit code %d, signal %d", took.Seconds(), over.ExitCode, over.Signal)
	if took > killTimeout || over.ExitCode != 0 || over.Signal != 0 {
		t.Errorf("it did not end by itself within %v", killTimeout)
	}
}

// killWorker kills the process that has the stream; its host stays.
func (a *audience) killWorker(t *testing.T) {
	c := a.c
	first := c.Placement(t, a.stream, "")
	a.viewer(t)
	alloc := c.Alloc(t, "worker", first.Worker)
	old := c.Processes(t, first.Worker, "gpac ")
	if len(old) == 0 {
		t.Fatalf("no GPAC runs on %s", first.Worker)
	}
	a.through(t, 2*time.Second, func() {
		c.killOne(t, first.Worker, "dionysia worker run")
		a.moved(t, first)
	})
	for _, pid := range old {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("its GPAC, process %d, outlived it: %v", pid, err)
		}
	}
	now := c.Alloc(t, "worker", first.Worker)
	if now.ID != alloc.ID || now.TaskStates["worker"].Restarts == alloc.TaskStates["worker"].Restarts {
		t.Errorf("the allocation was %s with %d restarts and is %s with %d", alloc.ID, alloc.TaskStates["worker"].Restarts, now.ID, now.TaskStates["worker"].Restarts)
	}
	c.passes(t, "origin", 2, moves)
	c.passes(t, "worker", 2, moves)
}

// killOne kills the only process of a host that is called so.
func (c *cluster) killOne(t *testing.T, host, words string) {
	t.Helper()
	list := c.Processes(t, host, words)
	if len(list) != 1 {
		t.Fatalf("processes %q on %s: %v", words, host, list)
	}
	if err := syscall.Kill(list[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// loseRouters stops the router that the edges ask for the stream, and kills the one
// that they ask then.
func (a *audience) loseRouters(t *testing.T) {
	c := a.c
	a.viewer(t)
	c.edgesKnow(t, c.passes(t, "router", 2, moves))
	a.through(t, 0, func() {
		r := a.router(t)
		c.NomadCommand(t, "alloc", "stop", "-detach", r.Alloc)
		kit.Eventually(t, aWhile, "the router that is stopped leaving Consul", func() error {
			for _, p := range c.Passing(t, "router") {
				if p.Addr == r.Addr {
					return fmt.Errorf("%v still passes", r)
				}
			}
			return nil
		})
		c.edgesKnow(t, c.passes(t, "router", 2, moves))

		r = a.router(t)
		restarts := func() uint64 {
			got, _, err := c.Nomad(t).Allocations().Info(r.Alloc, nil)
			if err != nil {
				t.Fatal(err)
			}
			return got.TaskStates["router"].Restarts
		}
		before := restarts()
		if err := syscall.Kill(c.process(t, r, "dionysia router"), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		kit.Eventually(t, aWhile, "Nomad starting it again", func() error {
			if now := restarts(); now != before+1 {
				return fmt.Errorf("%d restarts, before %d", now, before)
			}
			return nil
		})
		c.passes(t, "router", 2, moves)
	})
}

// edgesKnow waits until each edge has all of these routers in its configuration.
func (c *cluster) edgesKnow(t *testing.T, routers []clusterkit.Instance) {
	t.Helper()
	kit.Eventually(t, aWhile, "the edges knowing the routers", func() error {
		for _, edge := range c.Passing(t, "edge") {
			files := c.Inside(t, "/srv/nomad/alloc/"+edge.Alloc+"/nginx/local/nginx.conf")
			if len(files) != 1 {
				return fmt.Errorf("configurations of the edge on %s: %v", edge.Host, files)
			}
			b, err := os.ReadFile(files[0])
			if err != nil {
				return err
			}
			for _, r := range routers {
				if !strings.Contains(string(b), "server "+r.Addr+" ") {
					return fmt.Errorf("the edge on %s does not know %v", edge.Host, r)
				}
			}
		}
		return nil
	})
}

// process returns the id of an instance's process.
func (c *cluster) process(t *testing.T, i clusterkit.Instance, words string) int {
	t.Helper()
	for _, pid := range c.Processes(t, i.Host, words) {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // it may have ended
		if strings.Contains(string(env), "NOMAD_ALLOC_ID="+i.Alloc) {
			return pid
		}
	}
	t.Fatalf("%v has no process %q", i, words)
	return 0
}

// router returns the one from which an edge has the stream's playlist.
func (a *audience) router(t *testing.T) clusterkit.Instance {
	t.Helper()
	var router clusterkit.Instance
	kit.Eventually(t, aWhile, "an edge's answer by a router", func() error {
		got, err := kit.Fetch(a.watch.Master.Variants[0].URL)
		if err != nil || got.Status != http.StatusOK {
			return fmt.Errorf("status %d, %w", got.Status, err)
		}
		for _, r := range a.c.Passing(t, "router") {
			if got.Header.Get("X-Edge-Router") == r.Addr {
				router = r
				return nil
			}
		}
		return fmt.Errorf("headers %v", got.Header)
	})
	return router
}
