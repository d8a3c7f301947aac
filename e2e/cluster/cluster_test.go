// Package cluster_test runs Dionysia on real Nomad and Consul agents, on four
// hosts in network namespaces, as `make cluster` does: one cluster for all of
// its tests. It needs root.
package cluster_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/clusterkit"
)

const (
	goesLive = time.Minute
	aWhile   = 30 * time.Second
)

// jobs are all job files, in nomad/jobs.
var jobs = []string{"redis", "api", "ingest", "worker", "router", "edge"}

// cluster is a running tools/cluster.sh.
type cluster struct {
	*clusterkit.Cluster
	cgroups string // that were there before
}

func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("runs in real time")
	}
	if os.Getuid() != 0 {
		t.Fatal("hosts are network namespaces, which only root can make: run this test as root")
	}
	before := cgroups()
	c := &cluster{clusterkit.Start(t, "DIONYSIA_CPU_CAPACITY=200000000", "DIONYSIA_WORKER_LINGER=15s"), before}
	t.Run("job files", c.jobFiles)
	t.Run("access control", c.accessControl)
	t.Run("the api follows Nomad", c.follows)
	t.Run("while it plays", func(t *testing.T) {
		a := c.gather(t, "upgraded")
		t.Run("a worker's node drains", a.drain)
		t.Run("a worker is killed", a.killWorker)
		t.Run("routers stop and are killed", a.loseRouters)
		t.Run("every job is upgraded", a.upgrade)
		a.watch.Close()
	})
	t.Run("plays, and goes on when a host dies", c.plays)
	c.Logs(t) // before they are gone
	t.Run("down", c.down)
}

// down shows that nothing is left.
func (c *cluster) down(t *testing.T) {
	c.Run(t, "down")
	c.Dog.ExpectNoneLeft(t, 10*time.Second)
	if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
		t.Errorf("its folder: %v", err)
	}
	if left, _ := filepath.Glob("/run/netns/" + c.Name + "-*"); len(left) > 0 {
		t.Errorf("namespaces left: %v", left)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), c.Dir) {
		t.Errorf("mounts left: %v\n%s", err, mounts)
	}
	if now := cgroups(); now != c.cgroups {
		t.Errorf("cgroups were\n%sand are\n%s", c.cgroups, now)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(c.At(1), "http://")); err == nil {
		_ = conn.Close()
		t.Error("something still listens on the forwarder's port")
	}
}

// cgroups lists the folders that Nomad makes.
func cgroups() string {
	out, _ := exec.Command("find", "/sys/fs/cgroup", "-path", "*nomad*", "-type", "d").Output()
	return string(out)
}
