package kit_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// staticLive makes live HLS and DASH with ffmpeg alone and serves them as files:
// what the harness must find good.
func staticLive(t *testing.T) (hls, dash string, pub *kit.Proc) {
	t.Helper()
	dir := t.TempDir()
	argv := []string{kit.FFmpeg(t), "-hide_banner", "-loglevel", "warning", "-nostdin",
		"-re", "-f", "lavfi", "-i", "testsrc2=size=640x360:rate=30000/1001",
		"-re", "-f", "lavfi", "-i", "sine=frequency=440:beep_factor=4:sample_rate=48000",
		"-filter_complex", "[0:v]split[a][b0];[b0]scale=320:180[b]", "-map", "[a]", "-map", "[b]", "-map", "1:a",
		"-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "60", "-keyint_min", "60", "-sc_threshold", "0",
		"-b:v:0", "600k", "-b:v:1", "200k", "-c:a", "aac", "-b:a", "96k", "-ac", "2",
		"-f", "hls", "-hls_time", "2", "-hls_list_size", "15", "-hls_segment_type", "fmp4",
		"-hls_flags", "independent_segments+program_date_time+temp_file", "-master_pl_name", "master.m3u8",
		"-var_stream_map", "v:0,agroup:a v:1,agroup:a a:0,agroup:a", dir + "/v%v/index.m3u8"}
	pub = kit.Start(t, "ffmpeg as packager", argv)

	ddir := t.TempDir()
	dargs := append([]string{kit.FFmpeg(t)}, kit.Picture{}.Args()...)
	dargs = append(dargs, "-f", "dash", "-utc_timing_url", "/time", "-seg_duration", "2", "-window_size", "15", "-use_template", "1", "-use_timeline", "1",
		ddir+"/manifest.mpd")
	kit.Start(t, "ffmpeg as DASH packager", dargs)

	serve := func(dir string) string {
		files := http.FileServer(http.Dir(dir))
		srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.Header().Set("Cache-Control", "no-store")
			if r.URL.Path == "/time" {
				_, _ = fmt.Fprint(w, time.Now().UTC().Format(time.RFC3339Nano))
				return
			}
			files.ServeHTTP(w, r)
		})}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = srv.Serve(l) }()
		t.Cleanup(func() { _ = srv.Close() })
		return "http://" + l.Addr().String()
	}
	return serve(dir) + "/master.m3u8", serve(ddir) + "/manifest.mpd", pub
}

// The harness finds sound content sound, with every player, and notices when
// it stops.
func TestStaticContent(t *testing.T) {
	if testing.Short() {
		t.Skip("plays in real time")
	}
	hls, dash, pub := staticLive(t)
	w := kit.WatchHLS(t, hls, 30*time.Second)
	w.WaitSegments(t, 7, 60*time.Second)

	s := kit.StartPlayers(t)
	hlsPage, dashPage := s.Open(t, "hls.html", hls), s.Open(t, "dash.html", dash, "delay", "8")
	ff := kit.StartFFPlay(t, hls, 10*time.Second, 60*time.Second)
	ffDash := kit.StartFFPlay(t, dash, 10*time.Second, 60*time.Second)
	hlsPage.WaitStarted(t, 30*time.Second)
	dashPage.WaitStarted(t, 30*time.Second)
	r := hlsPage.PlayTotal(t, 12*time.Second)
	r.ExpectSmooth(t, 12*time.Second)
	d := dashPage.PlayTotal(t, 12*time.Second)
	d.ExpectSmooth(t, 12*time.Second)
	(<-ff).Expect(t, "ffmpeg HLS", 10*time.Second, 30000.0/1001)
	(<-ffDash).Expect(t, "ffmpeg DASH", 10*time.Second, 25)

	w.ExpectRuns(t, kit.Expect{Sizes: [][2]int{{640, 360}, {320, 180}}, FPS: 30000.0 / 1001, Audio: 1})
	w.ExpectClean(t)

	// A harness that can't see a stall proves nothing.
	pub.Kill()
	stalled := hlsPage.WaitFor(t, 60*time.Second, "stalls once its source is gone", func(r kit.Report) bool { return r.StallSeconds() > 1 })
	t.Logf("after the source's end: %s", stalled)
	w.Close()
}

// The playlist watch notices each kind of breach.
func TestWatchFindsBreaches(t *testing.T) {
	const head = "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:2\n"
	seg := func(n string) string { return "#EXTINF:2.0,\n" + n + ".m4s\n" }
	first := head + "#EXT-X-MEDIA-SEQUENCE:10\n#EXT-X-MAP:URI=\"i.mp4\"\n" + seg("a") + seg("b")
	for name, c := range map[string]struct{ then, want string }{
		"number reused":       {head + "#EXT-X-MEDIA-SEQUENCE:10\n#EXT-X-MAP:URI=\"i.mp4\"\n" + seg("a") + seg("x"), "number 11 changed"},
		"number down":         {head + "#EXT-X-MEDIA-SEQUENCE:1\n#EXT-X-MAP:URI=\"i.mp4\"\n" + seg("a") + seg("b"), "went from"},
		"number missing":      {head + "#EXT-X-MEDIA-SEQUENCE:13\n#EXT-X-MAP:URI=\"i.mp4\"\n" + seg("c"), "numbers jump from 11 to 13"},
		"segment missing":     {head + "#EXT-X-MEDIA-SEQUENCE:11\n#EXT-X-MAP:URI=\"i.mp4\"\n" + seg("b") + seg("gone"), "can't be fetched"},
		"playlist gone":       {"", "status 404"},
		"discontinuity moved": {head + "#EXT-X-MEDIA-SEQUENCE:10\n#EXT-X-MAP:URI=\"i.mp4\"\n" + seg("a") + "#EXT-X-DISCONTINUITY\n" + seg("b"), "discontinuity number"},
		"unfinished":          {first + "#EXTINF:0.000,\nz.m4s\n", "EXTINF"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			var whole atomic.Bool // the first playlist, with what it lists, is known to the watch
			srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body := first
				if whole.Load() {
					body = c.then
				}
				whole.Store(whole.Load() || r.URL.Path == "/b.m4s")
				switch {
				case r.URL.Path == "/master.m3u8":
					_, _ = fmt.Fprint(w, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"avc1.42c01e\"\nv.m3u8\n")
				case r.URL.Path == "/v.m3u8" && body != "":
					_, _ = fmt.Fprint(w, body)
				case strings.HasSuffix(r.URL.Path, ".m4s") && r.URL.Path != "/gone.m4s", r.URL.Path == "/i.mp4":
					_, _ = fmt.Fprint(w, "x")
				default:
					http.NotFound(w, r)
				}
			})}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = srv.Serve(l) }()
			defer func() { _ = srv.Close() }()
			w := kit.WatchHLS(t, "http://"+l.Addr().String()+"/master.m3u8", 30*time.Second)
			kit.Eventually(t, time.Minute, "the breach being noticed", func() error {
				if p := strings.Join(w.Problems(), "\n"); !strings.Contains(p, c.want) {
					return fmt.Errorf("problems: %s", p)
				}
				return nil
			})
		})
	}
}

// A process that leaves its parent, its group and its session is still found.
func TestWatchdogFindsOrphans(t *testing.T) {
	dir := t.TempDir()
	p := kit.Start(t, "parent", []string{"sh", "-c", "env -i setsid sh -c 'cd /; exec sleep 300' & exec sleep 301"})
	dog := kit.NewWatchdog(p.Pid(), dir, "")
	defer dog.Close()
	kit.Eventually(t, 10*time.Second, "both children", func() error {
		if left := dog.Left(); len(left) < 1 || !strings.Contains(fmt.Sprint(left), "sleep 300") {
			return fmt.Errorf("found %v", left)
		}
		return nil
	})
	if err := p.Cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	left := dog.Left()
	if len(left) != 1 || !strings.Contains(left[0].String(), "sleep 300") {
		t.Fatalf("left behind: %v", left)
	}
	for _, l := range left {
		if proc, err := os.FindProcess(l.Pid); err == nil {
			_ = proc.Kill()
		}
	}
	dog.ExpectNoneLeft(t, 10*time.Second)
}

func TestParseMedia(t *testing.T) {
	m, err := kit.ParseMedia("http://h/live/x/360p/index.m3u8", []byte(`#EXTM3U
#EXT-X-TARGETDURATION:2
#EXT-X-SERVER-CONTROL:HOLD-BACK=12.0
#EXT-X-MEDIA-SEQUENCE:7
#EXT-X-DISCONTINUITY-SEQUENCE:3
#EXT-X-MAP:URI="../seg/e1r1/360p/init.mp4"
#EXT-X-PROGRAM-DATE-TIME:2026-11-23T13:00:00.5Z
#EXTINF:2.002,
../seg/e1r1/360p/9.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="../seg/e1r2/360p/init.mp4"
#EXTINF:1.5,
../seg/e1r2/360p/1.m4s
#EXT-X-ENDLIST
`))
	if err != nil {
		t.Fatal(err)
	}
	a, b := m.Segments[0], m.Segments[1]
	for _, ok := range []bool{
		m.HoldBack == 12, m.End, a.Number == 7, b.Number == 8, a.DiscSeq == 3, b.DiscSeq == 4, b.Disc, !a.Disc,
		a.URL == "http://h/live/x/seg/e1r1/360p/9.m4s", b.Map == "http://h/live/x/seg/e1r2/360p/init.mp4",
		a.Duration == 2.002, a.PDT.Nanosecond() == 5e8, b.PDT.IsZero(),
	} {
		if !ok {
			t.Fatalf("%+v", m)
		}
	}
	for _, bad := range []string{"", "<html>", "#EXTM3U\nx.m4s\n"} {
		if _, err := kit.ParseMedia("http://h/", []byte(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func TestTail(t *testing.T) {
	f := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(f, []byte("one\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := kit.Tail(f, 7); got != "three\n" {
		t.Errorf("%q", got)
	}
}
