package client

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClusterInitAndBootstrap(t *testing.T) {
	c := &cluster{t: t}
	dir := filepath.Join(t.TempDir(), "keys")
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := c.try(t.Context(), &out, append([]string{"cluster"}, args...)...)
		return out.String(), err
	}
	fails := func(want string, args ...string) {
		t.Helper()
		out, err := run(args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s; it printed %s", args, err, want, out)
		}
	}
	fails("cluster init", "bootstrap", dir)
	fails("host w1: address", "init", dir, "--host", "s1=10.0.0.1,server", "--host", "w1=10.0.0.256,worker")
	fails("2 servers", "init", dir, "--host", "s1=10.0.0.1,server", "--host", "s2=10.0.0.2,server")
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("something was written: %v", err)
	}
	fails("--days: 0", "init", dir, "--host", "s1=10.0.0.1,server", "--days", "0")
	out, err := run("init", dir, "--host", "s1=10.0.0.1,server,redis,api", "--host", "w1=10.0.0.4,worker,router")
	if err != nil {
		t.Fatal(err)
	}
	contains(t, out, "made      consul.gossip", "made      hosts/w1/nomad.d/host.hcl", " 0 changed, 0 kept: dc1, 2 hosts, 1 server",
		"by --host: ingest\n", "Next: bring what changed to its host (hosts/s1, hosts/w1; ")
	out, err = run("init", dir, "--https")
	if err != nil {
		t.Fatal(err)
	}
	contains(t, out, "changed   hosts/s1/consul.d/host.hcl", "0 made, 5 changed")
	if out, err = run("init", dir, "--days", "10"); err != nil || !strings.HasPrefix(out, "0 made, 0 changed") {
		t.Errorf("again: %v; it printed %s", err, out)
	}
	out, err = run("init", dir, "--days", "10", "--renew")
	if err != nil {
		t.Fatal(err)
	}
	contains(t, out, "changed   hosts/w1/consul.d/agent.pem", "note: certificates of w1 end on")
	fails("waited 1ms for Consul at http://127.0.0.1:1", "bootstrap", dir, "--consul", "http://127.0.0.1:1", "--nomad", "http://127.0.0.1:1", "--timeout", "1ms")
}
