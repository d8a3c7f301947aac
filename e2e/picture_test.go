package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// One instance, one RTMP publisher at 29.97 frames per second, seen by
// everything that can look: Consul DNS, ffprobe, ffmpeg and the players.
func TestPicture(t *testing.T) {
	realTime(t)
	d := kit.StartDev(t, kit.DevOptions{})
	key := newStream(t, d, kit.StreamSpec{ID: "picture"})

	t.Run("before it is live", func(t *testing.T) {
		a := fetch(t, d.Master("nobody"))
		if a.Status != http.StatusNotFound {
			t.Errorf("a stream that does not exist: %d", a.Status)
		}
		a = fetch(t, d.Master("picture"))
		if a.Status != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
			t.Errorf("a stream that is not live yet: %d, Retry-After %q", a.Status, a.Header.Get("Retry-After"))
		}
	})

	pic := kit.Picture{Rate: "30000/1001"}
	begin := time.Now()
	pub := kit.Publish(t, pic, d.RTMPTarget("picture", key))
	w := kit.WatchHLS(t, d.Master("picture"), goesLive)
	t.Logf("publish → first playable segment: %.1f s", time.Since(begin).Seconds())
	mpd := kit.WatchMPD(t, d.MPD("picture"), aWhile)

	t.Run("found by Consul DNS", func(t *testing.T) { originByDNS(t, d) })
	t.Run("status", func(t *testing.T) {
		waitState(t, d, "picture", aWhile, "live")
		kit.Eventually(t, aWhile, "both renditions being measured", func() error {
			s, err := d.Status("picture")
			if err != nil {
				return err
			}
			measured := 0
			for _, r := range s.Renditions {
				if r.Bitrate > 0 && (r.FPS == 0 || r.FPS > 29 && r.FPS < 31) {
					measured++
				}
			}
			if measured < 3 || s.Session == nil || s.Session.Protocol != "rtmp" || s.Broadcast == nil || s.Placement == nil || s.Run == nil {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		if px, err := d.Reserved("picture"); err != nil || px <= 0 {
			t.Errorf("reserved: %d px/s, %v", px, err)
		}
	})

	w.WaitSegments(t, 6, goesLive)
	t.Run("players", func(t *testing.T) { players(t, d, pic.FPS()) })
	t.Run("manifests", func(t *testing.T) { manifests(t, w, mpd) })
	t.Run("headers", func(t *testing.T) { headers(t, w, d) })
	t.Run("refusals", func(t *testing.T) { refusals(t, d, pub, key) })
	w.Close()
	mpd.Close()

	w.ExpectClean(t)
	mpd.ExpectClean(t)
	w.ExpectRuns(t, kit.Expect{Sizes: [][2]int{{640, 360}, {320, 180}}, FPS: pic.FPS(), Audio: 1})
	if disc := w.Discontinuities(); len(disc) > 0 {
		t.Errorf("discontinuities before %v though nothing happened", disc)
	}
	t.Run("no secret in a log", func(t *testing.T) { noSecrets(t, d, key) })
}

func fetch(t *testing.T, u string) kit.Answer {
	t.Helper()
	a, err := kit.Fetch(u)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return a
}

// originByDNS asks Consul for the placement's worker as the router does.
func originByDNS(t *testing.T, d *kit.Dev) {
	ws, err := d.Workers()
	if err != nil || len(ws) != 1 {
		t.Fatalf("workers: %+v, %v", ws, err)
	}
	name := ws[0].ID + ".origin.service.consul."
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeSRV)
	r, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(q, d.ConsulDNS)
	if err != nil {
		t.Fatalf("asking for %s: %v", name, err)
	}
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(d.Origin, "http://"))
	for _, rr := range r.Answer {
		if srv, ok := rr.(*dns.SRV); ok && strconv.Itoa(int(srv.Port)) == port {
			return
		}
	}
	t.Errorf("%s has no SRV with port %s: %v", name, port, r)
}

// players plays for 30 s in each of them.
func players(t *testing.T, d *kit.Dev, fps float64) {
	const length = 30 * time.Second
	s := kit.StartPlayers(t)
	hls, dash := s.Open(t, "hls.html", d.Master("picture")), s.Open(t, "dash.html", d.MPD("picture"))
	ffHLS := kit.StartFFPlay(t, d.Master("picture"), length, length+60*time.Second)
	ffDASH := kit.StartFFPlay(t, d.MPD("picture"), length, length+60*time.Second)
	hls.WaitStarted(t, aWhile)
	dash.WaitStarted(t, aWhile)
	hls.PlayTotal(t, length).ExpectSmooth(t, length)
	dash.PlayTotal(t, length).ExpectSmooth(t, length)
	(<-ffHLS).Expect(t, "ffmpeg HLS", length, fps)
	(<-ffDASH).Expect(t, "ffmpeg DASH", length, fps)
}

// manifests checks what the master playlist and the MPD say of the media.
func manifests(t *testing.T, w *kit.HLSWatch, mpd *kit.MPDWatch) {
	if len(w.Master.Variants) != 2 || len(w.Master.Audio) != 1 {
		t.Fatalf("%d variants and %d audio renditions", len(w.Master.Variants), len(w.Master.Audio))
	}
	for _, v := range w.Master.Variants {
		if v.Attrs["FRAME-RATE"] != "29.970" {
			t.Errorf("%s: FRAME-RATE=%s", v.URL, v.Attrs["FRAME-RATE"])
		}
		if err := contains(v.Attrs["CODECS"], "avc1.", "mp4a.40.2"); err != nil {
			t.Errorf("%s: CODECS: %v", v.URL, err)
		}
		if v.Attrs["AUDIO"] == "" || v.Attrs["AUDIO"] != w.Master.Audio[0].Attrs["GROUP-ID"] {
			t.Errorf("%s: AUDIO=%q, GROUP-ID=%q", v.URL, v.Attrs["AUDIO"], w.Master.Audio[0].Attrs["GROUP-ID"])
		}
		peak, avg := v.Num("BANDWIDTH"), v.Num("AVERAGE-BANDWIDTH")
		if !(avg > 0 && peak >= avg) {
			t.Errorf("%s: BANDWIDTH %v, AVERAGE-BANDWIDTH %v", v.URL, peak, avg)
		}
		measured := measure(t, w, v.URL) + measure(t, w, w.Master.Audio[0].URL)
		if avg < measured*0.7 || peak > measured*2.5 {
			t.Errorf("%s: BANDWIDTH %v, AVERAGE-BANDWIDTH %v, its segments have %.0f bit/s", v.URL, peak, avg, measured)
		}
	}
	for _, tr := range w.Tracks() {
		if tr.Last.HoldBack != 12 {
			t.Errorf("%s: HOLD-BACK=%v", tr.Variant.URL, tr.Last.HoldBack)
		}
	}
	m := mpd.Last()
	if m.Type != "dynamic" || len(m.Periods) != 1 {
		t.Errorf("MPD: type %s, %d Periods", m.Type, len(m.Periods))
	}
	if delay, err := kit.Duration(m.Delay); err != nil || delay < 12 {
		t.Errorf("MPD: suggestedPresentationDelay %s", m.Delay)
	}
}

// measure returns the average bit rate of a track's segments.
func measure(t *testing.T, w *kit.HLSWatch, url string) float64 {
	t.Helper()
	for _, tr := range w.Tracks() {
		if tr.Variant.URL != url {
			continue
		}
		var bits, seconds float64
		for _, k := range tr.Segs {
			fi, err := os.Stat(k.File)
			if err != nil {
				t.Fatal(err)
			}
			bits += float64(fi.Size() * 8)
			seconds += k.Duration
		}
		return bits / seconds
	}
	return 0
}

func headers(t *testing.T, w *kit.HLSWatch, d *kit.Dev) {
	type answer struct {
		StatusCode    int
		Header        http.Header
		ContentLength int64
	}
	get := func(method, u string, h map[string]string) answer {
		req, err := http.NewRequest(method, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range h {
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return answer{resp.StatusCode, resp.Header, resp.ContentLength}
	}
	tr := w.Tracks()[0]
	seg := tr.Last.Segments[len(tr.Last.Segments)-1]
	for _, c := range []struct{ what, url, kind, cache string }{
		{"master playlist", d.Master("picture"), "mpegurl", ""},
		{"media playlist", tr.Variant.URL, "mpegurl", ""},
		{"MPD", d.MPD("picture"), "application/dash+xml", ""},
		{"segment", seg.URL, "video/", "immutable"},
		{"init segment", seg.Map, "video/", "immutable"},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			r := get(method, c.url, map[string]string{"Origin": "http://elsewhere.example"})
			if r.StatusCode != 200 || r.Header.Get("Access-Control-Allow-Origin") == "" {
				t.Errorf("%s of a %s: %d, CORS %q", method, c.what, r.StatusCode, r.Header.Get("Access-Control-Allow-Origin"))
			}
			if !strings.Contains(strings.ToLower(r.Header.Get("Content-Type")), c.kind) {
				t.Errorf("%s of a %s: Content-Type %q", method, c.what, r.Header.Get("Content-Type"))
			}
			if cc := r.Header.Get("Cache-Control"); cc == "" || !strings.Contains(cc, c.cache) {
				t.Errorf("%s of a %s: Cache-Control %q", method, c.what, cc)
			}
		}
	}
	if r := get("GET", seg.URL, map[string]string{"Range": "bytes=0-99"}); r.StatusCode != http.StatusPartialContent || r.ContentLength != 100 {
		t.Errorf("a range of a segment: %d, %d bytes", r.StatusCode, r.ContentLength)
	}
}

// refusals: each publisher that may not publish is turned away, with a reason
// among the stream's events, and the one that sends is not disturbed.
func refusals(t *testing.T, d *kit.Dev, pub *kit.Proc, key string) {
	other := newStream(t, d, kit.StreamSpec{ID: "other"})
	off := newStream(t, d, kit.StreamSpec{ID: "off", Disabled: true})
	refused(t, "unknown stream", d.RTMPTarget("nobody", key))
	refused(t, "wrong key", d.RTMPTarget("other", key))
	refused(t, "no key", []string{"-f", "flv", d.RTMP + "/other"})
	refused(t, "disabled stream", d.RTMPTarget("off", off))
	refused(t, "second publisher", d.RTMPTarget("picture", key))
	refused(t, "wrong key over RTSP", d.RTSPTarget("other", key))
	refused(t, "wrong key over SRT", d.SRTTarget("other", key))
	for stream, words := range map[string][]string{
		"other": {"refused", "key"}, "off": {"refused", "disabled"}, "picture": {"refused", "another"},
	} {
		kit.Eventually(t, aWhile, "the refusal among the events", func() error { return d.FindEvent(stream, words...) })
	}
	if !pub.Running() {
		t.Errorf("the publisher that was there first is gone: %s", pub.Exit())
	}
	if a := fetch(t, d.Master("other")); a.Status != http.StatusServiceUnavailable {
		t.Errorf("a stream whose publishers were all refused: %d", a.Status)
	}
	_ = other
}

// noSecrets looks for keys and tokens in everything that was logged.
func noSecrets(t *testing.T, d *kit.Dev, key string) {
	secrets := map[string]string{"the stream key": key, "the admin token": d.Token}
	for _, name := range []string{"redis.password", "cluster.secret"} {
		b, err := os.ReadFile(filepath.Join(d.DataDir, name))
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = strings.TrimSpace(string(b))
		if fi, err := os.Stat(filepath.Join(d.DataDir, name)); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", name, fi.Mode())
		}
	}
	logs, _ := filepath.Glob(filepath.Join(d.DataDir, "logs", "*"))
	for _, file := range append(logs, d.Proc.Log) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for what, secret := range secrets {
			if i := strings.Index(string(b), secret); i >= 0 {
				t.Errorf("%s is in %s: …%s…", what, filepath.Base(file), strings.ReplaceAll(string(b[max(0, i-100):i]), secret, "***"))
			}
		}
	}
}
