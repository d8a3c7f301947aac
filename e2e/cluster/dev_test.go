package cluster_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/clusterkit"
	"github.com/dionysia-dev/dionysia/e2e/kit"
)

const devPorts = 48 // that tools/cluster/dev.sh takes

// devCluster is a cluster of one host, of a user who isn't root.
type devCluster struct {
	*clusterkit.Cluster
	user *ordinary
}

// TestDevCluster runs `make cluster` as an ordinary user: one Consul and one
// Nomad in development mode, every job, the test picture.
func TestDevCluster(t *testing.T) {
	c := newDevCluster(t)
	c.refusesTakenPort(t)
	c.up(t)
	master := c.At(1) + "/live/demo/master.m3u8"
	w := kit.WatchHLS(t, master, goesLive)
	w.WaitSegments(t, 2, goesLive)
	played := kit.StartFFPlay(t, master, 8*time.Second, goesLive)

	c.accessControl(t)
	c.follows(t)
	before := c.whatRuns(t)
	if out, err := c.script("up").CombinedOutput(); err != nil {
		t.Errorf("up again: %v\n%s", err, out)
	}
	if after := c.whatRuns(t); after != before {
		t.Errorf("up again changed what runs, from\n%sto\n%s", before, after)
	}
	for _, job := range jobs {
		if out, err := c.script("job", "plan", job).CombinedOutput(); err != nil || !strings.Contains(string(out), "All tasks successfully allocated") {
			t.Errorf("planning %s: %v\n%s", job, err, out)
		}
	}
	c.oneHostOnly(t)

	(<-played).Expect(t, "ffmpeg through the edge", 8*time.Second, 25)
	w.WaitSegments(t, 2, aWhile)
	w.Close()
	w.ExpectClean(t)
	c.down(t)
}

func newDevCluster(t *testing.T) *devCluster {
	t.Helper()
	base, err := kit.FreeBase(devPorts)
	if err != nil {
		t.Fatal(err)
	}
	u := newOrdinary(t)
	c := &devCluster{&clusterkit.Cluster{Dir: filepath.Join(u.home, "cluster"), Ports: base}, u}
	u.env = append(u.env, "DIONYSIA_CLUSTER_DIR="+c.Dir, "DIONYSIA_CLUSTER_PORTS="+strconv.Itoa(base), "DIONYSIA_CPU_CAPACITY=200000000")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := c.script("logs", "60").CombinedOutput()
			t.Logf("%s", out)
		}
		if out, err := c.script("down").CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		if c.Dog != nil {
			c.Dog.ExpectNoneLeft(t, 10*time.Second)
		}
	})
	return c
}

func (c *devCluster) script(args ...string) *exec.Cmd { return c.user.command("cluster.sh", args...) }

// refusesTakenPort shows that it starts nothing when another has one of its ports.
func (c *devCluster) refusesTakenPort(t *testing.T) {
	t.Helper()
	other, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Ports+devPorts-1)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	out, err := c.script("up").CombinedOutput()
	if want := fmt.Sprintf("port %d is taken", c.Ports+devPorts-1); err == nil || !strings.Contains(string(out), want) {
		t.Fatalf("up ends with %v and does not say %q:\n%s", err, want, out)
	}
}

// up starts it, with the test picture. It is taken down when this process ends.
func (c *devCluster) up(t *testing.T) {
	t.Helper()
	began := time.Now()
	argv := c.script("up", "--until", strconv.Itoa(os.Getpid())).Args
	up := kit.Start(t, "cluster.sh up", argv, c.user.as)
	c.Dog = kit.NewWatchdog(up.Pid(), c.Dir, "")
	select {
	case <-up.Done():
	case <-time.After(2 * time.Minute):
		up.Kill()
		t.Fatalf("it is not up\n%s", kit.Tail(up.Log, 10_000))
	}
	said := kit.Tail(up.Log, 10_000)
	if up.ExitCode() != 0 {
		t.Fatalf("cluster.sh up: %s\n%s", up.Exit(), said)
	}
	t.Logf("up after %.1f s", time.Since(began).Seconds())
	for n, what := range map[int]string{0: "/v1 ", 1: "/watch/demo", 4: "/ui", 5: "/ui"} {
		if !strings.Contains(said, c.At(n)+what) {
			t.Errorf("it does not say where %s%s is:\n%s", c.At(n), what, said)
		}
	}
	c.API = kit.NewAPI(c.At(0), c.Secret(t, "admin.token"))
}

// accessControl shows that it is on, and that both servers know this host alone.
func (c *devCluster) accessControl(t *testing.T) {
	t.Helper()
	for _, q := range []struct {
		what, url, token string
		status           int
		answer           string
	}{
		{"Consul's services, anonymous", c.At(4) + "/v1/catalog/services", "", 200, "{}"},
		{"Nomad's jobs, anonymous", c.At(5) + "/v1/jobs", "", 403, "Permission denied"},
		{"Consul's services, people", c.At(4) + "/v1/catalog/services", c.Secret(t, "consul.operator"), 200, `"origin"`},
		{"Consul's tokens, people", c.At(4) + "/v1/acl/tokens", c.Secret(t, "consul.operator"), 403, "Permission denied"},
	} {
		if status, answer := clusterkit.Ask(t, http.MethodGet, q.url, q.token, ""); status != q.status || !strings.Contains(answer, q.answer) {
			t.Errorf("%s: %d %.300s; want %d %s", q.what, status, answer, q.status, q.answer)
		}
	}
	if info, err := os.Stat(c.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its folder: %v, %v; nobody else may enter it", info.Mode(), err)
	}
	for _, service := range []string{"redis-state", "redis-live", "api", "router", "worker", "origin", "ingest", "mediamtx", "edge"} {
		if list := c.Passing(t, service); len(list) != 1 || list[0].Host != "dev" || !strings.HasPrefix(list[0].Addr, "127.0.0.1:") {
			t.Errorf("instances of %s that pass: %v", service, list)
		}
	}
}

// follows shows that the api follows Nomad's nodes.
func (c *devCluster) follows(t *testing.T) {
	t.Helper()
	kit.Eventually(t, aWhile, "the api's log naming the node", func() error {
		logs, err := filepath.Glob(filepath.Join(c.Dir, "nomad/alloc/*/alloc/logs/api.std*"))
		for _, f := range logs {
			for line := range strings.Lines(kit.Tail(f, 100_000)) {
				if strings.Contains(line, `"a Nomad node"`) && strings.Contains(line, `"name":"dev"`) {
					return nil
				}
			}
		}
		return fmt.Errorf("not in %v, %w", logs, err)
	})
}

// whatRuns lists the processes that the script started and the tasks that Nomad did.
func (c *devCluster) whatRuns(t *testing.T) string {
	t.Helper()
	var lines []string
	for _, name := range []string{"consul", "nomad", "picture", "watch"} {
		b, err := os.ReadFile(filepath.Join(c.Dir, "pid", name))
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, name+" "+string(b))
	}
	status, body := clusterkit.Ask(t, http.MethodGet, c.At(5)+"/v1/allocations", c.Secret(t, "nomad.token"), "")
	var allocs []struct {
		ID, JobID, ClientStatus string
		TaskStates              map[string]struct{ StartedAt string }
	}
	if err := json.Unmarshal([]byte(body), &allocs); status != http.StatusOK || err != nil || len(allocs) != len(jobs) {
		t.Fatalf("Nomad's allocations: %d, %v; want %d\n%s", status, err, len(jobs), body)
	}
	for _, a := range allocs {
		lines = append(lines, fmt.Sprintf("%s %s %s %v\n", a.JobID, a.ID, a.ClientStatus, a.TaskStates))
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

// oneHostOnly shows what the commands for other hosts say.
func (c *devCluster) oneHostOnly(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{{"on", "w1", "true"}, {"kill", "w1"}} {
		if out, err := c.script(args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "there is one host only") {
			t.Errorf("%v: %v, and says %s", args, err, out)
		}
	}
	out, err := c.script("env").CombinedOutput()
	for _, want := range []string{"DIONYSIA_API=" + c.At(0), "CONSUL_HTTP_ADDR=" + c.At(4), "NOMAD_ADDR=" + c.At(5), "NOMAD_TOKEN="} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("env: %v, without %s:\n%s", err, want, out)
		}
	}
}

// down shows that nothing is left of it: no process, no file, no listener.
func (c *devCluster) down(t *testing.T) {
	t.Helper()
	if out, err := c.script("down").CombinedOutput(); err != nil {
		t.Fatalf("down: %v\n%s", err, out)
	}
	c.Dog.ExpectNoneLeft(t, 10*time.Second)
	// Go keeps its own count of how it is used, in .config.
	for dir, known := range map[string]string{c.user.home: " tmp .config ", filepath.Join(c.user.home, "tmp"): ""} {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		for _, f := range left {
			if !strings.Contains(known, " "+f.Name()+" ") {
				t.Errorf("left in %s: %s", dir, f.Name())
			}
		}
	}
	for p := c.Ports; p < c.Ports+devPorts; p++ {
		if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p))); err == nil {
			_ = conn.Close()
			t.Errorf("something still listens on port %d", p)
		}
	}
}
