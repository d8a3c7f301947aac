package cluster_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/e2e/clusterkit"
	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// follows shows that the api follows the nodes by its job's own identity, and that
// this identity is good for little else.
func (c *cluster) follows(t *testing.T) {
	kit.Eventually(t, aWhile, "the api's log naming every node", func() error {
		text := ""
		for _, f := range c.Inside(t, "srv/nomad/alloc/*/alloc/logs/api.std*") {
			for line := range strings.Lines(kit.Tail(f, 100_000)) {
				if strings.Contains(line, `"a Nomad node"`) {
					text += line
				}
			}
		}
		for host := range clusterkit.Addresses() {
			if !strings.Contains(text, `"name":"`+host+`"`) {
				return fmt.Errorf("not %s in\n%s", host, text)
			}
		}
		return nil
	})
	files := c.Inside(t, "srv/nomad/alloc/*/api/secrets/nomad_follow.jwt")
	if len(files) != 1 {
		t.Fatalf("the api's tokens: %v", files)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	_, body := clusterkit.Ask(t, http.MethodGet, c.At(5)+"/v1/nodes", c.Secret(t, "nomad.token"), "")
	var nodes []struct{ ID string }
	if err := json.Unmarshal([]byte(body), &nodes); err != nil || len(nodes) == 0 {
		t.Fatalf("Nomad's nodes: %v: %s", err, body)
	}
	node := nodes[0].ID
	for _, q := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/v1/nodes", "", 200},
		{"GET", "/v1/job/worker", "", 200},
		{"GET", "/v1/var/nomad/jobs/api", "", 200},
		{"GET", "/v1/var/nomad/jobs/router", "", 403},
		{"GET", "/v1/var/nomad/jobs/redis", "", 403},
		{"PUT", "/v1/var/nomad/jobs/api", `{"Path": "nomad/jobs/api", "Items": {"x": "y"}}`, 403},
		{"PUT", "/v1/jobs", `{"Job": {"ID": "x", "Type": "batch", "Datacenters": ["dc1"], "TaskGroups": [{"Name": "x",
			"Tasks": [{"Name": "x", "Driver": "raw_exec", "Config": {"command": "/bin/true"}}]}]}}`, 403},
		{"DELETE", "/v1/job/worker", "", 403},
		{"PUT", "/v1/node/" + node + "/drain", `{"DrainSpec": {"Deadline": 1}}`, 403},
		{"PUT", "/v1/node/" + node + "/eligibility", `{"Eligibility": "ineligible"}`, 403},
		{"GET", "/v1/acl/tokens", "", 403},
	} {
		if status, answer := clusterkit.Ask(t, q.method, c.At(5)+q.path, strings.TrimSpace(string(b)), q.body); status != q.status {
			t.Errorf("the api, Nomad's %s %s: %d %.300s; want %d", q.method, q.path, status, answer, q.status)
		}
	}
}
