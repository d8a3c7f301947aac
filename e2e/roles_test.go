package e2e

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/ingest"
	"github.com/dionysia-dev/dionysia/services/ingest/hook"
)

// installation is every role as a process of its own.
type installation struct {
	*kit.Dev // Proc is the worker
	redis    *testkit.Redis
	consul   *testkit.Consul
	api      *kit.Proc
	router   *kit.Proc
	agent    *kit.Proc
	worker   *kit.Proc
	start    map[string]func() *kit.Proc
}

// install starts them, configured by flags for the most part and by the
// environment for the rest.
func install(t *testing.T) *installation {
	t.Helper()
	i := &installation{redis: testkit.NewRedis(t), consul: testkit.StartConsul(t, time.Second)}
	dir := filepath.Dir(kit.DataDir(t))
	write := func(name, text string) string {
		f := filepath.Join(dir, name)
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return f
	}
	cluster, admin := rand.Text()+rand.Text(), rand.Text()
	secret, token := write("cluster.secret", cluster), write("admin.token", admin)
	password := write("redis.password", i.redis.Password)
	ports := testkit.FreePorts(t, 4)
	addr := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", ports[n]) }
	agentURL := "http://" + addr(1)
	bin := kit.Binary(t)
	mtx := testkit.StartMediaMTX(t, func(p testkit.MediaMTXPorts) []byte {
		lo := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
		b, err := ingest.MediaMTXConfig(ingest.MediaMTXParams{RTMP: lo(p.RTMP), RTSP: lo(p.RTSP), SRT: lo(p.SRT), WebRTC: lo(p.WebRTC),
			ICE: lo(p.ICE), API: lo(p.API), AgentURL: agentURL, Secret: auth.Secret(cluster), Hook: []string{bin, "hook"}})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}, hook.EnvURL+"="+agentURL, hook.EnvToken+"="+auth.Secret(cluster).Derive("mediamtx-hook"))

	// The same for every role; what a role has no use for, it ignores.
	env := kit.WithEnv("DIONYSIA_REDIS_STATE=redis://"+i.redis.Addr+"/0", "DIONYSIA_REDIS_LIVE=redis://"+i.redis.Addr+"/1",
		"DIONYSIA_REDIS_PASSWORD_FILE="+password, "DIONYSIA_SECRET_FILE="+secret, "DIONYSIA_CONSUL_ADDR="+i.consul.HTTPAddr,
		"DIONYSIA_CPU_CAPACITY=200000000")
	role := func(name string, args ...string) func() *kit.Proc {
		return func() *kit.Proc {
			return kit.Start(t, "dionysia "+name, append([]string{bin, name}, args...), env)
		}
	}
	gpac, err := kit.FindPart("DIONYSIA_GPAC", "gpac")
	if err != nil {
		t.Fatal(err)
	}
	i.start = map[string]func() *kit.Proc{
		"api": role("api", "--listen", addr(0), "--admin-token-file", token),
		"ingest": role("ingest", "--listen", addr(1), "--node", "one", "--api", "http://"+addr(0), "--mediamtx-api", mtx.APIURL(),
			"--rtmp", mtx.Addr(mtx.Ports.RTMP), "--rtsp", mtx.Addr(mtx.Ports.RTSP)),
		"router": role("router", "--listen", addr(2), "--consul-dns", i.consul.DNSAddr),
		"worker": role("worker", "--listen", addr(3), "--id", "w1", "--gpac", gpac,
			"--run-dir", filepath.Join(dir, "runs"), "--cache-dir", filepath.Join(dir, "cache")),
	}
	i.api, i.agent, i.router, i.worker = i.start["api"](), i.start["ingest"](), i.start["router"](), i.start["worker"]()
	dog := kit.NewWatchdog(i.worker.Pid(), dir, "")
	i.Dev = kit.Adopt(t, kit.Endpoints{API: "http://" + addr(0), Ingest: agentURL, Router: "http://" + addr(2), Origin: "http://" + addr(3),
		RTMP: "rtmp://" + mtx.Addr(mtx.Ports.RTMP) + "/live"}, kit.NewAPI("http://"+addr(0), admin), i.worker, dog)
	t.Cleanup(i.Dog.Close)
	for name, base := range map[string]string{"api": i.Endpoints.API, "ingest": i.Ingest, "router": i.Router, "worker": i.Origin} {
		i.waitHealthy(t, name, base+"/readyz")
	}
	return i
}

func (i *installation) waitHealthy(t *testing.T, name, u string) {
	t.Helper()
	kit.Eventually(t, goesLive, name+" being ready", func() error {
		_, err := kit.FetchOK(u)
		return err
	})
}

// The roles as separate processes: a stream goes on with the api and Redis
// dead, even across a crash of GPAC, and is managed again when they are back.
func TestRolesApart(t *testing.T) {
	realTime(t)
	i := install(t)
	t.Run("metrics", func(t *testing.T) {
		for name, base := range map[string]string{"api": i.Endpoints.API, "ingest": i.Ingest, "router": i.Router, "worker": i.Origin} {
			b, err := kit.FetchOK(base + "/metrics")
			if err != nil || contains(string(b), "process_cpu_seconds_total", "# HELP") != nil {
				t.Errorf("metrics of %s: %v: %.200s", name, err, b)
			}
		}
	})
	key := newStream(t, i.Dev, kit.StreamSpec{ID: "show", Grace: 5})
	pub := kit.Publish(t, kit.Picture{}, i.RTMPTarget("show", key))
	w := kit.WatchHLS(t, i.Master("show"), goesLive)
	w.WaitSegments(t, 7, goesLive)
	s := kit.StartPlayers(t)
	hls := s.Open(t, "hls.html", i.Master("show"))
	hls.WaitStarted(t, aWhile)

	t.Run("api and Redis dead", func(t *testing.T) {
		i.api.Kill()
		i.redis.Kill()
		w.WaitSegments(t, 5, goesLive)
		i.KillGPAC()
		before := w.Newest()
		kit.Eventually(t, aWhile, "segments of a new GPAC", func() error {
			if n := w.Newest(); n < before+4 {
				return fmt.Errorf("newest %d, was %d", n, before)
			}
			return nil
		})
		if disc := w.Discontinuities(); len(disc) != 1 {
			t.Errorf("discontinuities before %v; one was due", disc)
		}
	})
	t.Run("api and Redis back", func(t *testing.T) {
		i.redis.Restart()
		i.api = i.start["api"]()
		i.waitHealthy(t, "api", i.Endpoints.API+"/readyz")
		w.WaitSegments(t, 4, goesLive)
		waitState(t, i.Dev, "show", aWhile, "live")
		r := hls.Play(t, 15*time.Second)
		t.Logf("%s", r)
		expectNoStall(t, r)
		if disc := w.Discontinuities(); len(disc) != 1 {
			t.Errorf("discontinuities before %v; one was due", disc)
		}
	})
	t.Run("end", func(t *testing.T) {
		stopPublisher(t, pub)
		w.WaitEnded(t, goesLive)
		w.Close()
		w.ExpectClean(t)
	})
	t.Run("worker killed", func(t *testing.T) {
		kit.Publish(t, kit.Picture{}, i.RTMPTarget("show", key))
		waitState(t, i.Dev, "show", goesLive, "live")
		i.worker.Signal(syscall.SIGKILL)
		<-i.worker.Done()
		kit.Eventually(t, 10*time.Second, "no GPAC without its worker", func() error {
			for _, p := range i.Dog.Left() {
				if strings.HasPrefix(p.Exe(), "gpac") {
					return fmt.Errorf("%v", p)
				}
			}
			return nil
		})
		if a := fetch(t, i.Master("show")); a.Status != http.StatusOK {
			t.Errorf("the master playlist without its origin: %d", a.Status)
		}
	})
	t.Run("SIGTERM drains", func(t *testing.T) {
		i.worker = i.start["worker"]()
		i.waitHealthy(t, "worker", i.Origin+"/readyz")
		for name, p := range map[string]*kit.Proc{"router": i.router, "worker": i.worker, "ingest": i.agent, "api": i.api} {
			if err := p.Stop(syscall.SIGTERM, aWhile); err != nil {
				t.Errorf("%v", err)
			} else if p.ExitCode() != 0 {
				t.Errorf("%s after SIGTERM: %s\n%s", name, p.Exit(), kit.Tail(p.Log, 2000))
			}
		}
	})
}
