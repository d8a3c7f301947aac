package cluster_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/dionysia-dev/dionysia/e2e/clusterkit"
	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// token makes a Consul token with one of the repository's policies.
func (c *cluster) token(t *testing.T, policy string) string {
	t.Helper()
	status, body := clusterkit.Ask(t, http.MethodPut, c.At(4)+"/v1/acl/token", c.Secret(t, "consul.management"),
		`{"Policies": [{"Name": "dionysia-`+policy+`"}], "Local": true}`)
	var made struct{ SecretID string }
	if err := json.Unmarshal([]byte(body), &made); status != http.StatusOK || err != nil {
		t.Fatalf("a token for %s: %d %s", policy, status, body)
	}
	return made.SecretID
}

func (c *cluster) accessControl(t *testing.T) {
	consul, nomad := c.At(4), c.At(5)
	register := func(service string) string {
		return `{"ID": "test-` + service + `", "Name": "` + service + `", "Port": 1}`
	}
	const (
		services = "/v1/catalog/services"
		origins  = "/v1/health/service/origin"
		edit     = "/v1/agent/service/register"
	)
	client, server := c.Secret(t, keys.NomadClient("w1")), c.Secret(t, keys.NomadServer)
	none, router, worker, ingest, edge := "", c.token(t, "router"), c.token(t, "worker"), c.token(t, "ingest"), c.token(t, "edge")
	operator := c.Secret(t, "consul.operator")
	for _, q := range []struct {
		who, token, method, path, body string
		status                         int
		want                           string // the whole answer, when it is not empty
		has                            string // a part of it
	}{
		{"anonymous", none, "GET", services, "", 200, "{}", ""},
		{"anonymous", none, "GET", origins, "", 200, "[]", ""},
		{"anonymous", none, "GET", "/v1/catalog/nodes", "", 200, "[]", ""},
		{"anonymous", none, "GET", "/v1/agent/members", "", 200, "[]", ""},
		{"anonymous", none, "PUT", edit, register("origin"), 403, "", ""},
		{"a router", router, "GET", origins, "", 200, "", `"w1"`},
		{"a router", router, "PUT", edit, register("origin"), 403, "", ""},
		{"a router", router, "PUT", "/v1/kv/x", "x", 403, "", ""},
		{"a worker", worker, "PUT", edit, register("router"), 403, "", ""},
		{"a worker", worker, "PUT", edit, register("api"), 403, "", ""},
		{"a worker", worker, "GET", "/v1/health/service/api", "", 200, "[]", ""},
		{"a worker", worker, "PUT", edit, register("origin"), 200, "", ""},
		{"a worker", worker, "PUT", "/v1/agent/service/deregister/test-origin", "", 200, "", ""},
		{"an ingest agent", ingest, "PUT", edit, register("origin"), 403, "", ""},
		{"an edge", edge, "GET", "/v1/health/service/router", "", 200, "", `"Port"`},
		{"an edge", edge, "GET", origins, "", 200, "[]", ""},
		{"w1's Nomad", client, "PUT", edit, register("origin"), 403, "", ""},
		{"w1's Nomad", client, "PUT", edit, register("mediamtx"), 403, "", ""},
		{"w1's Nomad", client, "PUT", edit, register("redis-state"), 403, "", ""},
		{"w1's Nomad", client, "PUT", edit, register("redis-live"), 403, "", ""},
		{"w1's Nomad", client, "PUT", edit, register("api"), 403, "", ""},
		{"w1's Nomad", client, "PUT", edit, register("router"), 403, "", ""},
		{"w1's Nomad", client, "PUT", edit, register("worker"), 200, "", ""},
		{"w1's Nomad", client, "PUT", "/v1/agent/service/deregister/test-worker", "", 200, "", ""},
		{"w1's Nomad", client, "PUT", edit, register("edge"), 200, "", ""},
		{"w1's Nomad", client, "PUT", "/v1/agent/service/deregister/test-edge", "", 200, "", ""},
		{"w1's Nomad", client, "PUT", "/v1/kv/x", "x", 403, "", ""},
		{"a server's Nomad", server, "PUT", edit, register("worker"), 403, "", ""},
		{"people", operator, "GET", services, "", 200, "", `"origin"`},
		{"people", operator, "PUT", edit, register("origin"), 403, "", ""},
		{"people", operator, "GET", "/v1/acl/tokens", "", 403, "", ""},
	} {
		status, answer := clusterkit.Ask(t, q.method, consul+q.path, q.token, q.body)
		if status != q.status || (q.want != "" && answer != q.want) || !strings.Contains(answer, q.has) {
			t.Errorf("%s, Consul's %s %s: %d %.300s; want %d %s%s", q.who, q.method, q.path, status, answer, q.status, q.want, q.has)
		}
	}
	for path, want := range map[string]int{"/v1/jobs": 403, "/v1/nodes": 403, "/v1/vars": 200, "/v1/var/nomad/jobs/api": 403} {
		status, answer := clusterkit.Ask(t, http.MethodGet, nomad+path, none, "")
		if status != want || (want == 200 && answer != "[]") {
			t.Errorf("anonymous, Nomad's GET %s: %d %.300s; want %d", path, status, answer, want)
		}
	}
	c.dnsAcrossHosts(t)
}

// dnsAcrossHosts asks each host's own Consul for what runs on others, as
// whatever resolves names there does.
func (c *cluster) dnsAcrossHosts(t *testing.T) {
	for host, question := range map[string]string{"server": "w1.origin.service.consul.", "ingest": "w2.origin.service.consul.",
		"w1": "w2.origin.service.consul.", "w2": "w1.origin.service.consul."} {
		at := c.Reach(t, host, "127.0.0.1:53")
		srv, err := lookup(at, question)
		if want := clusterkit.Addresses()[question[:2]] + ":8091"; err != nil || srv != want {
			t.Errorf("%s, asked on %s: %q, %v; want %s", question, host, srv, err, want)
		}
	}
}

// lookup asks for an SRV record and returns the host:port that it gives.
func lookup(server, name string) (string, error) {
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeSRV)
	r, _, err := (&dns.Client{Net: "tcp"}).Exchange(q, server)
	if err != nil {
		return "", err
	}
	port, ip := 0, ""
	for _, rr := range append(r.Answer, r.Extra...) {
		switch rr := rr.(type) {
		case *dns.SRV:
			port = int(rr.Port)
		case *dns.A:
			ip = rr.A.String()
		}
	}
	return fmt.Sprintf("%s:%d", ip, port), nil
}
