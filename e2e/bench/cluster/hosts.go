package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/e2e/clusterkit"
	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// jobs are all of the cluster's, in nomad/jobs.
func jobs() []string { return []string{"redis", "api", "ingest", "worker", "router", "edge"} }

// instances are what passes in Consul when all is up, at least.
func instances() map[string]int {
	return map[string]int{"redis-state": 1, "redis-live": 1, "api": 1, "ingest": 1, "mediamtx": 1, "worker": 2, "origin": 2, "router": 2, "edge": 2}
}

const (
	goesLive = 2 * time.Minute
	settles  = 2 * time.Minute
	profile  = "bench"
)

// hosts is a cluster, and Nomad's own ways to it.
type hosts struct {
	*clusterkit.Cluster
	t     *harness.T
	nomad *nomad.Client
	env   []string          // for the nomad command
	specs map[string]string // files with the jobs as nomad job run takes them, by name
}

// up returns the cluster, which is started when first asked for and serves all
// parts.
func (b *bench) up() (*hosts, error) {
	if b.hosts != nil {
		return b.hosts, nil
	}
	h := &hosts{Cluster: clusterkit.Start(b.t, "DIONYSIA_CPU_CAPACITY=200000000"), t: b.t, specs: map[string]string{}}
	token := h.Secret(b.t, "nomad.token")
	h.env = append(os.Environ(), "NOMAD_ADDR="+h.At(5), "NOMAD_TOKEN="+token)
	var err error
	if h.nomad, err = nomad.NewClient(&nomad.Config{Address: h.At(5), SecretID: token}); err != nil {
		return nil, fmt.Errorf("preparing nomad client: %w", err)
	}
	dir := b.t.TempDir()
	for _, job := range jobs() {
		spec, err := h.Script("job", "run", job, "-output").Output()
		if err != nil {
			return nil, fmt.Errorf("reading the job %s: %w", job, err)
		}
		h.specs[job] = filepath.Join(dir, job+".json")
		if err := os.WriteFile(h.specs[job], spec, 0o600); err != nil {
			return nil, err
		}
	}
	if err := h.PutProfile(profile, kit.SmallLadder()); err != nil {
		return nil, err
	}
	b.hosts = h
	return h, h.whole()
}

// command runs nomad as an operator does, and returns what it printed.
func (h *hosts) command(args ...string) error {
	cmd := exec.Command(kit.Part(h.t, "DIONYSIA_NOMAD", "nomad"), args...)
	cmd.Env = h.env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nomad %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// runJob is nomad job run, without waiting for what it starts.
func (h *hosts) runJob(job string) error {
	return h.command("job", "run", "-detach", "-json", h.specs[job])
}

// stopJob is nomad job stop. It returns when none of its tasks runs any more.
func (h *hosts) stopJob(job string) error {
	if err := h.command("job", "stop", "-detach", job); err != nil {
		return err
	}
	return kit.Wait(h.t.Context(), settles, func() error { return h.stopped(job) })
}

func (h *hosts) stopped(job string) error {
	list, _, err := h.nomad.Jobs().Allocations(job, true, nil)
	if err != nil {
		return err
	}
	for _, a := range list {
		if a.ClientStatus == nomad.AllocClientStatusRunning || a.ClientStatus == nomad.AllocClientStatusPending {
			return fmt.Errorf("%s on %s: %s", job, a.NodeName, a.ClientStatus)
		}
	}
	return nil
}

// node returns a host's id in Nomad.
func (h *hosts) node(host string) (string, error) {
	list, _, err := h.nomad.Nodes().List(nil)
	if err != nil {
		return "", fmt.Errorf("listing nodes: %w", err)
	}
	for _, n := range list {
		if n.Name == host {
			return n.ID, nil
		}
	}
	return "", fmt.Errorf("nomad knows no node %s", host)
}

// whole waits until every service passes in Consul, and every worker is ready for
// the api.
func (h *hosts) whole() error {
	return kit.Wait(h.t.Context(), settles, func() error {
		for service, n := range instances() {
			// More are those that Nomad has not taken out of Consul yet: their check passes
			// by what listens at their port now.
			if passing := len(h.Passing(h.t, service)); passing < n {
				return fmt.Errorf("%d of %d instances of %s pass", passing, n, service)
			}
		}
		workers, err := h.Workers()
		if err != nil {
			return err
		}
		ready := 0
		for _, w := range workers {
			if w.Ready {
				ready++
			}
		}
		if ready != 2 {
			return fmt.Errorf("%d workers are ready", ready)
		}
		return nil
	})
}

// publish creates a stream and publishes it until the returned process is killed.
func (h *hosts) publish(s kit.StreamSpec) (*kit.Proc, error) {
	s.Profile = profile
	key, err := h.CreateStream(s)
	if err != nil {
		return nil, err
	}
	return kit.Publish(h.t, kit.Picture{}, h.RTMP(s.ID, key)), nil
}

// master is a stream's master playlist at the forwarder's n-th port: 1 goes by an
// edge, 2 to a router.
func (h *hosts) master(n int, stream string) string {
	return h.At(n) + "/live/" + stream + "/master.m3u8"
}

// pause waits, unless the run ends.
func (h *hosts) pause(d time.Duration) error {
	ctx, cancel := context.WithTimeout(h.t.Context(), d)
	defer cancel()
	<-ctx.Done()
	return h.t.Context().Err()
}
