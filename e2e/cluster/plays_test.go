package cluster_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// instance is a service's, as Consul knows it.
type instance struct{ host, addr, admin string }

// passing returns what passes all its checks.
func (c *cluster) passing(t *testing.T, service string) []instance {
	t.Helper()
	status, body := ask(t, http.MethodGet, c.at(4)+"/v1/health/service/"+service+"?passing=true", c.secret(t, "consul.operator"), "")
	var list []struct {
		Node    struct{ Node string }
		Service struct {
			Address string
			Port    int
			Meta    map[string]string
		}
	}
	if err := json.Unmarshal([]byte(body), &list); status != http.StatusOK || err != nil {
		t.Fatalf("%s in Consul: %d %s", service, status, body)
	}
	var out []instance
	for _, i := range list {
		out = append(out, instance{i.Node.Node, net.JoinHostPort(i.Service.Address, strconv.Itoa(i.Service.Port)), i.Service.Meta["admin"]})
	}
	return out
}

// plays publishes to the ingest host, watches through an edge, a router and a
// worker that are on three hosts, and kills the worker's host.
func (c *cluster) plays(t *testing.T) {
	const stream = "cluster"
	if err := c.PutProfile("e2e", kit.SmallLadder()); err != nil {
		t.Fatal(err)
	}
	key, err := c.CreateStream(kit.StreamSpec{ID: stream, Profile: "e2e"})
	if err != nil {
		t.Fatal(err)
	}
	pic := kit.Picture{}
	began := time.Now()
	kit.Publish(t, pic, kit.Endpoints{RTMP: fmt.Sprintf("rtmp://127.0.0.1:%d/live", c.ports+3)}.RTMPTarget(stream, key))
	first := c.placement(t, stream, "")

	var edge instance
	for _, e := range c.passing(t, "edge") {
		if e.host != first.Worker {
			edge = e
		}
	}
	if edge.host == "" {
		t.Fatalf("no edge passes on another host than %s: %v", first.Worker, c.passing(t, "edge"))
	}
	base := "http://" + c.reach(t, "server", edge.addr)
	w := kit.WatchHLS(t, base+"/live/"+stream+"/master.m3u8", goesLive)
	t.Logf("publish → first playlist: %.1f s", time.Since(began).Seconds())
	w.WaitSegments(t, 3, goesLive)
	played := kit.StartFFPlay(t, base+"/live/"+stream+"/master.m3u8", 10*time.Second, goesLive)
	c.threeHosts(t, base+"/live/"+stream+"/master.m3u8", edge.host, first.Worker)
	(<-played).Expect(t, "ffmpeg through the edge", 10*time.Second, pic.FPS())

	// What a worker has listed and no router has fetched yet, a second's worth at most, dies with its host:
	// numbers are judged until then, and what is played afterwards.
	w.WaitSegments(t, 1, aWhile)
	w.Close()
	w.ExpectClean(t)
	killed := time.Now()
	c.kill(t, first.Worker)
	second := c.placement(t, stream, first.Worker)
	t.Logf("%s killed → placed on %s: %.1f s", first.Worker, second.Worker, time.Since(killed).Seconds())
	if second.Epoch <= first.Epoch {
		t.Errorf("epoch %d after %d", second.Epoch, first.Epoch)
	}
	kit.Eventually(t, goesLive, "segments of the new run being listed", func() error {
		m, err := kit.FetchMedia(w.Master.Variants[0].URL)
		if err != nil {
			return err
		}
		made := 0
		for _, s := range m.Segments {
			if strings.Contains(s.URL, fmt.Sprintf("/e%dr", second.Epoch)) {
				made++
			}
		}
		if made < 4 || m.Seq == 0 {
			return fmt.Errorf("%d of %d segments are of epoch %d", made, len(m.Segments), second.Epoch)
		}
		return nil
	})
	t.Logf("killed → four segments listed from %s: %.1f s", second.Worker, time.Since(killed).Seconds())
	(<-kit.StartFFPlay(t, base+"/live/"+stream+"/master.m3u8", 10*time.Second, goesLive)).Expect(t, "ffmpeg after the host's death", 10*time.Second, pic.FPS())
	kit.Eventually(t, aWhile, "the dead host's services leaving DNS", func() error {
		if left := c.passing(t, "origin"); len(left) != 1 || left[0].host != second.Worker {
			return fmt.Errorf("origins that pass: %v", left)
		}
		return nil
	})
}

// kill kills a host's first process, and with it the host, at once.
func (c *cluster) kill(t *testing.T, host string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, "pid", "host-"+host))
	if err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(string(b), " ")
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatalf("killing %s: %v", host, err)
	}
	c.run(t, "kill", host) // returns when it is gone
}

type placed struct {
	Worker string
	Epoch  uint64
}

// placement waits until the stream runs on a worker that is not this one.
func (c *cluster) placement(t *testing.T, stream, not string) placed {
	t.Helper()
	var p placed
	kit.Eventually(t, goesLive, stream+" being placed", func() error {
		s, err := c.Status(stream)
		if err != nil {
			return err
		}
		if s.Placement == nil || s.Placement.Worker == not || s.Run == nil || s.State != "live" {
			return fmt.Errorf("%s, placement %+v, run %+v: %s", s.State, s.Placement, s.Run, s.LastError)
		}
		p = placed{s.Placement.Worker, s.Placement.Epoch}
		return nil
	})
	return p
}

var found = regexp.MustCompile(`(?m)^dionysia_discovery_lookups_total\{outcome="found"\} ([0-9.e+]+)$`)

// threeHosts shows by which router the edge answered, and that this router
// found the worker on another host by asking its own host's Consul.
func (c *cluster) threeHosts(t *testing.T, url, edge, worker string) {
	t.Helper()
	var router instance
	kit.Eventually(t, aWhile, "an answer of the edge that is not from its cache", func() error {
		a, err := kit.Fetch(url)
		if err != nil || a.Status != http.StatusOK {
			return fmt.Errorf("status %d, %w", a.Status, err)
		}
		for _, r := range c.passing(t, "router") {
			if a.Header.Get("X-Edge-Router") == r.addr {
				router = r
				return nil
			}
		}
		return fmt.Errorf("headers %v", a.Header)
	})
	t.Logf("edge on %s → router on %s → worker on %s", edge, router.host, worker)
	if router.host == worker || router.host == edge || edge == worker {
		t.Error("not three hosts")
	}
	metrics, err := kit.FetchOK("http://" + c.reach(t, router.host, router.admin) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if m := found.FindSubmatch(metrics); m == nil || string(m[1]) == "0" {
		t.Errorf("the router found no origin by DNS: %q", m)
	}
}
