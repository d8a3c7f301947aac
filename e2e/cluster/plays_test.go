package cluster_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/clusterkit"
	"github.com/dionysia-dev/dionysia/e2e/kit"
)

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
	kit.Publish(t, pic, c.RTMP(stream, key))
	first := c.Placement(t, stream, "")

	var edge clusterkit.Instance
	for _, e := range c.Passing(t, "edge") {
		if e.Host != first.Worker {
			edge = e
		}
	}
	if edge.Host == "" {
		t.Fatalf("no edge passes on another host than %s: %v", first.Worker, c.Passing(t, "edge"))
	}
	base := "http://" + c.Reach(t, "server", edge.Addr)
	w := kit.WatchHLS(t, base+"/live/"+stream+"/master.m3u8", goesLive)
	t.Logf("publish → first playlist: %.1f s", time.Since(began).Seconds())
	w.WaitSegments(t, 3, goesLive)
	played := kit.StartFFPlay(t, base+"/live/"+stream+"/master.m3u8", 10*time.Second, goesLive)
	c.threeHosts(t, base+"/live/"+stream+"/master.m3u8", edge.Host, first.Worker)
	(<-played).Expect(t, "ffmpeg through the edge", 10*time.Second, pic.FPS())

	// It is watched through the death of the host: no number is missing or twice, and all that is listed can be had.
	w.WaitSegments(t, 1, aWhile)
	killed := time.Now()
	c.Kill(t, first.Worker)
	second := c.Placement(t, stream, first.Worker)
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
	w.Close()
	w.ExpectClean(t)
	if d := w.Discontinuities(); len(d) != 1 {
		t.Errorf("discontinuities before %v, want one", d)
	}
	kit.Eventually(t, aWhile, "the dead host's services leaving DNS", func() error {
		if left := c.Passing(t, "origin"); len(left) != 1 || left[0].Host != second.Worker {
			return fmt.Errorf("origins that pass: %v", left)
		}
		return nil
	})
}

var found = regexp.MustCompile(`(?m)^dionysia_discovery_lookups_total\{outcome="found"\} ([0-9.e+]+)$`)

// threeHosts shows by which router the edge answered, and that this router
// found the worker on another host by asking its own host's Consul.
func (c *cluster) threeHosts(t *testing.T, url, edge, worker string) {
	t.Helper()
	var router clusterkit.Instance
	kit.Eventually(t, aWhile, "an answer of the edge that is not from its cache", func() error {
		a, err := kit.Fetch(url)
		if err != nil || a.Status != http.StatusOK {
			return fmt.Errorf("status %d, %w", a.Status, err)
		}
		for _, r := range c.Passing(t, "router") {
			if a.Header.Get("X-Edge-Router") == r.Addr {
				router = r
				return nil
			}
		}
		return fmt.Errorf("headers %v", a.Header)
	})
	t.Logf("edge on %s → router on %s → worker on %s", edge, router.Host, worker)
	if router.Host == worker || router.Host == edge || edge == worker {
		t.Error("not three hosts")
	}
	metrics, err := kit.FetchOK("http://" + c.Reach(t, router.Host, router.Admin) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if m := found.FindSubmatch(metrics); m == nil || string(m[1]) == "0" {
		t.Errorf("the router found no origin by DNS: %q", m)
	}
}
