// Package cluster_test runs Dionysia on real Nomad and Consul agents, on four
// hosts in network namespaces, as `make cluster` does: one cluster for all of
// its tests. It needs root.
package cluster_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

const (
	upLimit  = 5 * time.Minute // it takes about 40 s on two cores with nothing else to do
	goesLive = time.Minute
	aWhile   = 30 * time.Second
)

// jobs are all job files, in nomad/jobs.
var jobs = []string{"redis", "api", "ingest", "worker", "router", "edge"}

// addresses are the hosts', which only their own namespaces know.
var addresses = map[string]string{"server": "10.90.0.1", "ingest": "10.90.0.2", "w1": "10.90.0.3", "w2": "10.90.0.4"}

// cluster is a running tools/cluster.sh.
type cluster struct {
	dir, name string
	ports     int // the first of the forwarder's
	env       []string
	cgroups   string // that were there before
	dog       *kit.Watchdog
	*kit.API
}

func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("runs in real time")
	}
	if os.Getuid() != 0 {
		t.Fatal("hosts are network namespaces, which only root can make: run this test as root")
	}
	c := start(t)
	t.Run("job files", c.jobFiles)
	t.Run("access control", c.accessControl)
	t.Run("plays, and goes on when a host dies", c.plays)
	t.Run("down", c.down)
}

// start brings the cluster up. It is taken down at the test's end, and by a
// process of its own when the test binary dies.
func start(t *testing.T) *cluster {
	t.Helper()
	parent, err := os.MkdirTemp("", "dionysia-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	base, err := kit.FreeBase(8)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{dir: filepath.Join(parent, "cluster"), name: "dio" + strconv.Itoa(os.Getpid()), ports: base, cgroups: cgroups()}
	c.env = []string{"DIONYSIA_CLUSTER_DIR=" + c.dir, "DIONYSIA_CLUSTER_NAME=" + c.name, "DIONYSIA_CLUSTER_PORTS=" + strconv.Itoa(base),
		"DIONYSIA_BIN=" + kit.Binary(t), "DIONYSIA_CPU_CAPACITY=200000000"}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := c.script("logs", "100").CombinedOutput()
			t.Logf("%s", out)
		}
		if out, err := c.script("down").CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		c.dog.ExpectNoneLeft(t, 10*time.Second)
		_ = os.RemoveAll(parent)
	})
	began := time.Now()
	up := kit.Start(t, "cluster.sh up", []string{filepath.Join(kit.RepoRoot(), "tools", "cluster.sh"), "up", "--bare", "--until", strconv.Itoa(os.Getpid())},
		kit.WithEnv(c.env...))
	c.dog = kit.NewWatchdog(up.Pid(), c.dir, "")
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
	c.API = kit.NewAPI(c.at(0), c.secret(t, "admin.token"))
	return c
}

// script is a call of tools/cluster.sh for this cluster.
func (c *cluster) script(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(kit.RepoRoot(), "tools", "cluster.sh"), args...)
	cmd.Env = append(os.Environ(), c.env...)
	return cmd
}

func (c *cluster) run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := c.script(args...).CombinedOutput(); err != nil {
		t.Fatalf("cluster.sh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// at is what the forwarder shows at its n-th port: 0 the api, 3 RTMP,
// 4 Consul, 5 Nomad.
func (c *cluster) at(n int) string { return fmt.Sprintf("http://127.0.0.1:%d", c.ports+n) }

func (c *cluster) secret(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, "secrets", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// reach makes an address that only a host's namespace knows reachable here.
func (c *cluster) reach(t *testing.T, host, target string) string {
	t.Helper()
	port, err := kit.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	here := fmt.Sprintf("127.0.0.1:%d", port)
	p := kit.Start(t, "forward to "+target, []string{filepath.Join(c.dir, "bin", "forward"), here + "=/run/netns/" + c.name + "-" + host + "," + target})
	kit.Eventually(t, aWhile, "the forwarder to "+target, func() error {
		if s := kit.Tail(p.Log, 1000); !strings.Contains(s, "ready") {
			return fmt.Errorf("it says %q", s)
		}
		return nil
	})
	return here
}

// down shows that nothing is left.
func (c *cluster) down(t *testing.T) {
	c.run(t, "down")
	c.dog.ExpectNoneLeft(t, 10*time.Second)
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("its folder: %v", err)
	}
	if left, _ := filepath.Glob("/run/netns/" + c.name + "-*"); len(left) > 0 {
		t.Errorf("namespaces left: %v", left)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), c.dir) {
		t.Errorf("mounts left: %v\n%s", err, mounts)
	}
	if now := cgroups(); now != c.cgroups {
		t.Errorf("cgroups were\n%sand are\n%s", c.cgroups, now)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(c.at(1), "http://")); err == nil {
		_ = conn.Close()
		t.Error("something still listens on the forwarder's port")
	}
}

// cgroups lists the folders that Nomad makes.
func cgroups() string {
	out, _ := exec.Command("find", "/sys/fs/cgroup", "-path", "*nomad*", "-type", "d").Output()
	return string(out)
}
