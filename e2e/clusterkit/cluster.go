// Package clusterkit starts tools/cluster.sh, a cluster of four hosts with real
// Nomad and Consul agents, for end-to-end tests and benchmarks. It needs root.
package clusterkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

const (
	upLimit  = 5 * time.Minute // it takes about 40 s on two cores with nothing else to do
	goesLive = time.Minute
	aWhile   = 30 * time.Second
)

// Addresses are the hosts', which only their own namespaces know.
func Addresses() map[string]string {
	return map[string]string{"server": "10.90.0.1", "ingest": "10.90.0.2", "w1": "10.90.0.3", "w2": "10.90.0.4"}
}

// Cluster is a running tools/cluster.sh.
type Cluster struct {
	Dir, Name string
	Ports     int // the first of the forwarder's
	Dog       *kit.Watchdog
	*kit.API

	env   []string
	nomad *api.Client
}

// Start brings a cluster up, without a test picture; env is more for its
// script, "NAME=value". It is taken down at t's end, and by a process of its own
// when this one dies.
func Start(t kit.T, env ...string) *Cluster {
	t.Helper()
	parent, err := os.MkdirTemp("", "dionysia-e2e-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	base, err := kit.FreeBase(8)
	if err != nil {
		t.Fatalf("%v", err)
	}
	c := &Cluster{Dir: filepath.Join(parent, "cluster"), Name: "dio" + strconv.Itoa(os.Getpid()), Ports: base}
	c.env = append([]string{"DIONYSIA_CLUSTER_DIR=" + c.Dir, "DIONYSIA_CLUSTER_NAME=" + c.Name, "DIONYSIA_CLUSTER_PORTS=" + strconv.Itoa(base),
		"DIONYSIA_BIN=" + kit.Binary(t)}, env...)
	t.Cleanup(func() {
		c.Logs(t)
		if out, err := c.Script("down").CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		c.Dog.ExpectNoneLeft(t, aWhile)
		_ = os.RemoveAll(parent)
	})
	began := time.Now()
	up := kit.Start(t, "cluster.sh up", []string{filepath.Join(kit.RepoRoot(), "tools", "cluster.sh"), "up", "--bare", "--until", strconv.Itoa(os.Getpid())},
		kit.WithEnv(c.env...))
	c.Dog = kit.NewWatchdog(up.Pid(), c.Dir, "")
	select {
	case <-up.Done():
	case <-time.After(upLimit):
		up.Kill()
		t.Fatalf("the cluster is not up after %v\n%s", upLimit, kit.Tail(up.Log, 10_000))
	}
	if up.ExitCode() != 0 {
		t.Fatalf("cluster.sh up: %s\n%s", up.Exit(), kit.Tail(up.Log, 10_000))
	}
	t.Logf("up after %.1f s", time.Since(began).Seconds())
	c.API = kit.NewAPI(c.At(0), c.Secret(t, "admin.token"))
	return c
}

// Logs prints every process's last lines when t has failed and the cluster is there.
func (c *Cluster) Logs(t kit.T) {
	t.Helper()
	if _, err := os.Stat(c.Dir); !t.Failed() || err != nil {
		return
	}
	out, _ := c.Script("logs", "100").CombinedOutput()
	t.Logf("%s", out)
}

// Script is a call of tools/cluster.sh for this cluster.
func (c *Cluster) Script(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(kit.RepoRoot(), "tools", "cluster.sh"), args...)
	cmd.Env = append(os.Environ(), c.env...)
	return cmd
}

// Run calls tools/cluster.sh and fails t unless it succeeds.
func (c *Cluster) Run(t kit.T, args ...string) {
	t.Helper()
	if out, err := c.Script(args...).CombinedOutput(); err != nil {
		t.Fatalf("cluster.sh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// At is what the forwarder shows at its n-th port: 0 the api, 1 the edges, 2 the
// routers, 3 RTMP, 4 Consul, 5 Nomad.
func (c *Cluster) At(n int) string { return fmt.Sprintf("http://127.0.0.1:%d", c.Ports+n) }

// RTMP returns ffmpeg's output arguments for a stream.
func (c *Cluster) RTMP(stream, key string) []string {
	return kit.Endpoints{RTMP: fmt.Sprintf("rtmp://127.0.0.1:%d/live", c.Ports+3)}.RTMPTarget(stream, key)
}

// Secret reads one of the cluster's secrets.
func (c *Cluster) Secret(t kit.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.Dir, "secrets", name))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return strings.TrimSpace(string(b))
}

// Reach makes an address that only a host's namespace knows reachable here, and
// returns host:port.
func (c *Cluster) Reach(t kit.T, host, target string) string {
	t.Helper()
	port, err := kit.FreePort()
	if err != nil {
		t.Fatalf("%v", err)
	}
	here := fmt.Sprintf("127.0.0.1:%d", port)
	p := kit.Start(t, "forward to "+target, []string{filepath.Join(c.Dir, "bin", "forward"), here + "=/run/netns/" + c.Name + "-" + host + "," + target})
	kit.Eventually(t, aWhile, "the forwarder to "+target, func() error {
		if s := kit.Tail(p.Log, 1000); !strings.Contains(s, "ready") {
			return fmt.Errorf("it says %q", s)
		}
		return nil
	})
	return here
}
