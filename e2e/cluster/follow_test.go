package cluster_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// inside returns the paths that a pattern has on any host that runs, as seen from
// here: what a host has mounted lies in its own namespace.
func (c *cluster) inside(t *testing.T, pattern string) []string {
	t.Helper()
	var out []string
	for host := range addresses {
		b, err := os.ReadFile(filepath.Join(c.dir, "pid", "host-"+host))
		if err != nil {
			continue // it was killed
		}
		pid, _, _ := strings.Cut(string(b), " ")
		found, err := filepath.Glob(filepath.Join("/proc", pid, "root", pattern))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	return out
}

// follows shows that the api follows the nodes by its job's own identity, and that
// this identity is good for little else.
func (c *cluster) follows(t *testing.T) {
	kit.Eventually(t, aWhile, "the api's log naming every node", func() error {
		text := ""
		for _, f := range c.inside(t, "srv/nomad/alloc/*/alloc/logs/api.std*") {
			text += kit.Tail(f, 100_000)
		}
		for host := range addresses {
			if !strings.Contains(text, "a Nomad node: name="+host+" ") {
				return fmt.Errorf("not %s in\n%s", host, text)
			}
		}
		return nil
	})
	files := c.inside(t, "srv/nomad/alloc/*/api/secrets/nomad_follow.jwt")
	if len(files) != 1 {
		t.Fatalf("the api's tokens: %v", files)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	_, nodes := ask(t, http.MethodGet, c.at(5)+"/v1/nodes", c.secret(t, "nomad.token"), "")
	_, node, _ := strings.Cut(nodes, `"ID":"`)
	node, _, _ = strings.Cut(node, `"`)
	for _, q := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1/nodes", "", 200},
		{"GET", "/v1/jobs", "", 200},
		{"GET", "/v1/var/nomad/jobs/api", "", 200},
		{"GET", "/v1/var/nomad/jobs/router", "", 403},
		{"GET", "/v1/var/nomad/jobs/redis", "", 403},
		{"PUT", "/v1/var/nomad/jobs/api", `{"Path": "nomad/jobs/api", "Items": {"x": "y"}}`, 403},
		{"PUT", "/v1/jobs", `{"Job": {"ID": "x", "Type": "batch", "Datacenters": ["dc1"], "TaskGroups": [{"Name": "x",
			"Tasks": [{"Name": "x", "Driver": "raw_exec", "Config": {"command": "/bin/true"}}]}]}}`, 403},
		{"DELETE", "/v1/job/worker", "", 403},
		{"PUT", "/v1/node/" + node + "/drain", `{"DrainSpec": {"Deadline": 1}}`, 403},
		{"PUT", "/v1/node/" + node + "/eligibility", `{"Eligibility": "ineligible"}`, 403},
		{"GET", "/v1/acl/policies", "", 200},
		{"GET", "/v1/acl/tokens", "", 403},
	} {
		if status, answer := ask(t, q.method, c.at(5)+q.path, strings.TrimSpace(string(b)), q.body); status != q.status {
			t.Errorf("the api, Nomad's %s %s: %d %.300s; want %d", q.method, q.path, status, answer, q.status)
		}
	}
}
