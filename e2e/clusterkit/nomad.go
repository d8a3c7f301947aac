package clusterkit

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// Nomad returns a client with the management token.
func (c *Cluster) Nomad(t kit.T) *api.Client {
	t.Helper()
	if c.nomad != nil {
		return c.nomad // an agent gives one client a hundred connections
	}
	n, err := api.NewClient(&api.Config{Address: c.At(5), SecretID: c.Secret(t, "nomad.token")})
	if err != nil {
		t.Fatalf("%v", err)
	}
	c.nomad = n
	return n
}

// NomadCommand runs Nomad's own command on the host server, as an operator would.
func (c *Cluster) NomadCommand(t kit.T, args ...string) {
	t.Helper()
	// By the environment: everybody on this machine may read command lines. cluster.sh passes no such variable on.
	withToken := []string{"on", "server", "sh", "-c", `NOMAD_TOKEN=$(cat "$0") && export NOMAD_TOKEN && exec "$@"`, filepath.Join(c.Dir, "secrets", "nomad.token")}
	c.Run(t, append(append(withToken, kit.Part(t, "DIONYSIA_NOMAD", "nomad")), args...)...)
}

// Node returns the id of a host's Nomad node.
func (c *Cluster) Node(t kit.T, host string) string {
	t.Helper()
	nodes, _, err := c.Nomad(t).Nodes().List(nil)
	if err != nil {
		t.Fatalf("listing nodes: %v", err)
	}
	for _, n := range nodes {
		if n.Name == host && n.Status == api.NodeStatusReady {
			return n.ID
		}
	}
	t.Fatalf("no node %s is ready", host)
	return ""
}

// Allocs returns a job's allocations that are meant to run, the newest first.
func (c *Cluster) Allocs(t kit.T, job string) []*api.AllocationListStub {
	t.Helper()
	all, _, err := c.Nomad(t).Jobs().Allocations(job, false, nil)
	if err != nil {
		t.Fatalf("the allocations of %s: %v", job, err)
	}
	all = slices.DeleteFunc(all, func(a *api.AllocationListStub) bool { return a.DesiredStatus != api.AllocDesiredStatusRun })
	slices.SortFunc(all, func(a, b *api.AllocationListStub) int { return int(b.CreateIndex) - int(a.CreateIndex) })
	return all
}

// Alloc returns the newest allocation of a job on a host that is meant to run.
func (c *Cluster) Alloc(t kit.T, job, host string) *api.AllocationListStub {
	t.Helper()
	for _, a := range c.Allocs(t, job) {
		if a.NodeName == host {
			return a
		}
	}
	t.Fatalf("%s has no allocation on %s", job, host)
	return nil
}

// WaitNewest waits until a job's newest version runs, in so many allocations, and
// no other does.
func (c *Cluster) WaitNewest(t kit.T, job string, count int, limit time.Duration) {
	t.Helper()
	kit.Eventually(t, limit, "the newest version of "+job+" alone running", func() error {
		j, _, err := c.Nomad(t).Jobs().Info(job, nil)
		if err != nil {
			return err
		}
		all, _, err := c.Nomad(t).Jobs().Allocations(job, false, nil)
		if err != nil {
			return err
		}
		newest, others := 0, []string(nil)
		for _, a := range all {
			switch running := a.ClientStatus == api.AllocClientStatusRunning || a.ClientStatus == api.AllocClientStatusPending; {
			case running && a.JobVersion == *j.Version && a.ClientStatus == api.AllocClientStatusRunning:
				newest++
			case running:
				others = append(others, fmt.Sprintf("%s of version %d on %s %s", a.ID[:8], a.JobVersion, a.NodeName, a.ClientStatus))
			}
		}
		if newest != count || len(others) > 0 {
			return fmt.Errorf("%d allocations of version %d run; besides them: %s", newest, *j.Version, strings.Join(others, ", "))
		}
		return nil
	})
}
