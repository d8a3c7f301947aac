package kit

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/ingest"
	"github.com/dionysia-dev/dionysia/services/ingest/hook"
)

// Installation is every role as a process of its own, with a Redis, a Consul
// and a mediamtx.
type Installation struct {
	*Dev   // its Proc is the first worker
	Redis  *testkit.Redis
	Consul *testkit.Consul
	Dir    string
	RunDir string
	Secret auth.Secret
	Role   map[string]*Proc // by name: api, ingest, router, worker

	start map[string]func() *Proc
	ready map[string]string
}

// Install starts the roles, configured by flags for the most part and by the
// environment for the rest, and waits until all are ready. more is more of the
// environment, NAME=value.
func Install(t testing.TB, more ...string) *Installation {
	t.Helper()
	i := &Installation{Redis: testkit.NewRedis(t), Consul: testkit.StartConsul(t, time.Second), Role: map[string]*Proc{}}
	i.Dir = filepath.Dir(DataDir(t))
	i.RunDir = filepath.Join(i.Dir, "runs")
	write := func(name, text string) string {
		f := filepath.Join(i.Dir, name)
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatalf("%v", err)
		}
		return f
	}
	cluster, admin := rand.Text()+rand.Text(), rand.Text()
	i.Secret = auth.Secret(cluster)
	secret, token := write("cluster.secret", cluster), write("admin.token", admin)
	password := write("redis.password", i.Redis.Password)
	ports := testkit.FreePorts(t, 4)
	addr := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", ports[n]) }
	agentURL := "http://" + addr(1)
	bin := Binary(t)
	mtx := testkit.StartMediaMTX(t, func(p testkit.MediaMTXPorts) []byte {
		lo := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
		b, err := ingest.MediaMTXConfig(ingest.MediaMTXParams{RTMP: lo(p.RTMP), RTSP: lo(p.RTSP), SRT: lo(p.SRT), WebRTC: lo(p.WebRTC),
			ICE: lo(p.ICE), API: lo(p.API), AgentURL: agentURL, Secret: i.Secret, Hook: []string{bin, "hook"}})
		if err != nil {
			t.Fatalf("%v", err)
		}
		return b
	}, hook.EnvURL+"="+agentURL, hook.EnvToken+"="+i.Secret.Derive("mediamtx-hook"))

	// The same for every role; what a role has no use for, it ignores.
	env := WithEnv(append([]string{"DIONYSIA_REDIS_STATE=redis://" + i.Redis.Addr + "/0", "DIONYSIA_REDIS_LIVE=redis://" + i.Redis.Addr + "/1",
		"DIONYSIA_REDIS_PASSWORD_FILE=" + password, "DIONYSIA_SECRET_FILE=" + secret, "DIONYSIA_CONSUL_ADDR=" + i.Consul.HTTPAddr,
		"DIONYSIA_CPU_CAPACITY=200000000"}, more...)...)
	role := func(name string, args ...string) func() *Proc {
		return func() *Proc { return Start(t, "dionysia "+name, append([]string{bin, name}, args...), env) }
	}
	i.start = map[string]func() *Proc{
		"api": role("api", "--listen", addr(0), "--admin-token-file", token),
		"ingest": role("ingest", "--listen", addr(1), "--node", "one", "--api", "http://"+addr(0), "--mediamtx-api", mtx.APIURL(),
			"--rtmp", mtx.Addr(mtx.Ports.RTMP), "--rtsp", mtx.Addr(mtx.Ports.RTSP)),
		"router": role("router", "--listen", addr(2), "--consul-dns", i.Consul.DNSAddr),
		"worker": role("worker", "--listen", addr(3), "--id", "w1", "--gpac", Part(t, "DIONYSIA_GPAC", "gpac"),
			"--run-dir", i.RunDir, "--cache-dir", filepath.Join(i.Dir, "cache")),
	}
	e := Endpoints{API: "http://" + addr(0), Ingest: agentURL, Router: "http://" + addr(2), Origin: "http://" + addr(3),
		RTMP: "rtmp://" + mtx.Addr(mtx.Ports.RTMP) + "/live"}
	i.ready = map[string]string{"api": e.API, "ingest": e.Ingest, "router": e.Router, "worker": e.Origin}
	for name := range i.start {
		i.Role[name] = i.start[name]()
	}
	i.Dev = &Dev{Endpoints: e, API: NewAPI(e.API, admin), Proc: i.Role["worker"], Dog: NewWatchdog(i.Role["worker"].Pid(), i.Dir, ""), t: t}
	t.Cleanup(i.Dog.Close)
	for name := range i.start {
		i.WaitReady(name)
	}
	return i
}

// Bases returns the roles' base URLs by their names.
func (i *Installation) Bases() map[string]string { return i.ready }

// Restart starts a role that has ended, and waits until it is ready.
func (i *Installation) Restart(name string) {
	i.t.Helper()
	i.Role[name] = i.start[name]()
	if name == "worker" {
		i.Proc = i.Role[name]
	}
	i.WaitReady(name)
}

// WaitReady waits until a role says that it is ready.
func (i *Installation) WaitReady(name string) {
	i.t.Helper()
	Eventually(i.t, time.Minute, name+" being ready", func() error {
		if p := i.Role[name]; !p.Running() {
			i.t.Fatalf("%s ended: %s\n%s", name, p.Exit(), Tail(p.Log, 3000))
		}
		_, err := FetchOK(i.ready[name] + "/readyz")
		return err
	})
}
