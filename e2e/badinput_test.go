package e2e

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// Bad input of every kind, through the running product, while one sound stream
// is live: each gets a clear error, nothing leaks, nothing stays running, and
// the stream doesn't notice.
func TestBadInput(t *testing.T) {
	realTime(t)
	d := kit.StartDev(t, kit.DevOptions{})
	key := newStream(t, d, kit.StreamSpec{ID: "sound"})
	kit.Publish(t, kit.Picture{}, d.RTMPTarget("sound", key))
	w := kit.WatchHLS(t, d.Master("sound"), goesLive)
	w.WaitSegments(t, 3, goesLive)

	t.Run("paths", func(t *testing.T) { badPaths(t, d, w) })
	t.Run("api", func(t *testing.T) { badRequests(t, d) })
	t.Run("separators", func(t *testing.T) { separators(t, d) })
	t.Run("publishers", func(t *testing.T) { badPublishers(t, d) })

	if ps := d.GPACs(); len(ps) != 1 {
		t.Errorf("one stream is live, and these run: %v", ps)
	}
	w.WaitSegments(t, 3, goesLive)
	w.Close()
	w.ExpectClean(t)
	w.ExpectRuns(t, kit.Expect{FPS: 25})
}

// rawGet sends exactly this request line: no client cleans the path.
func rawGet(base, target string) (status int, body string, err error) {
	host := strings.TrimPrefix(base, "http://")
	c, err := net.DialTimeout("tcp", host, 5*time.Second)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target, host); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func badPaths(t *testing.T, d *kit.Dev, w *kit.HLSWatch) {
	seg := w.Tracks()[0].Last.Segments[0].URL
	good := strings.TrimPrefix(seg, d.Router) // /live/sound/seg/e1r1/360p/1.m4s
	dir := good[:strings.LastIndex(good, "/")]
	if status, _, err := rawGet(d.Origin, good); err != nil || status != 200 {
		t.Fatalf("the origin answers %d to the sound path %s: %v", status, good, err)
	}
	targets := []string{
		"/live/../admin.token", "/live/sound/../../admin.token", "/../../../../etc/passwd", "//etc/passwd", "///etc/passwd",
		"/live//etc/passwd", "/live/%2e%2e/%2e%2e/admin.token", "/live/..%2f..%2fadmin.token", "/live/sound/%2e%2e%2f%2e%2e%2fadmin.token",
		"/live/%2fetc%2fpasswd", "/live/sound/seg/../../../admin.token", "/live/sound/seg/%2e%2e/%2e%2e/admin.token",
		"/live/sound/seg/e1r1/../../../../admin.token", "/live/sound/seg/e1r1/..%2f..%2f..%2fadmin.token/1.m4s",
		dir + "/../../../../../etc/passwd", dir + "/..%2f1.m4s", dir + "/%2e%2e/1.m4s", dir + "/.%2e/1.m4s", dir + "/%252e%252e/1.m4s",
		dir + "/1.m4s%00", dir + "/1.m4s%00.txt", dir + `/..\..\admin.token`, dir + "/1.m4s/", dir + "/", dir, dir + "/01.m4s", dir + "/+1.m4s",
		dir + "/-1.m4s", dir + "/1.mp4", dir + "/99999999999999999999999999.m4s", dir + "//1.m4s", dir + "/./1.m4s",
		"/live/sound/seg/e01r1/360p/1.m4s", "/live/sound/seg/E1R1/360p/init.mp4", "/live/sound/seg/e1r1/nope/init.mp4",
		"/live/SOUND/master.m3u8", "/live/sound/master.m3u8/..", "/live/sound/master.m3u8%2f", "/live/sound%20/master.m3u8", "/live/sound;a=b/master.m3u8",
		"/live/" + strings.Repeat("a", 5000) + "/master.m3u8", "/live/" + strings.Repeat("../", 500) + "etc/passwd",
		"/live/sound\x7f/master.m3u8", "/live/%ff%fe/master.m3u8", "/live/sound/nope/index.m3u8", "/live/sound/%2e/master.m3u8",
		"http://elsewhere.example/live/../admin.token", "/admin.token", "/.git/config", "/assets/../../etc/passwd", "/assets/%2e%2e/%2e%2e/etc/passwd",
		"/watch/../admin.token", "/watch/<script>alert(1)</script>", "*",
	}
	token, err := os.ReadFile(d.DataDir + "/admin.token")
	if err != nil {
		t.Fatal(err)
	}
	for role, base := range map[string]string{"router": d.Router, "origin": d.Origin} {
		for _, target := range targets {
			status, body, err := rawGet(base, target)
			if err != nil {
				t.Errorf("%s: GET %.100q: %v", role, target, err)
				continue
			}
			if status < 300 || status >= 500 {
				t.Errorf("%s: GET %.100q: %d %.100q", role, target, status, body)
			}
			for _, leak := range []string{strings.TrimSpace(string(token)), "root:", d.DataDir, "goroutine ", "<script>alert"} {
				if strings.Contains(body, leak) {
					t.Errorf("%s: GET %.100q: %q is in the answer", role, target, leak)
				}
			}
		}
	}
	// Methods other than reading, and bodies that never come.
	for _, method := range []string{"POST", "PUT", "DELETE", "TRACE", "CONNECT"} {
		req, err := http.NewRequest(method, d.Master("sound"), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			continue // refused at once is clear too
		}
		_ = resp.Body.Close()
		if resp.StatusCode < 400 || resp.StatusCode >= 500 {
			t.Errorf("%s of a playlist: %d", method, resp.StatusCode)
		}
	}
}

// isProblem fails t unless the answer is an RFC 9457 document with a status of
// 4xx, and returns it.
func isProblem(t *testing.T, what string, a kit.Answer) kit.Problem {
	t.Helper()
	var p kit.Problem
	err := json.Unmarshal(a.Body, &p)
	if err != nil || a.Status < 400 || a.Status >= 500 || p.Status != a.Status || p.Title == "" ||
		!strings.HasPrefix(a.Header.Get("Content-Type"), "application/problem+json") {
		t.Errorf("%s: %d %s: %.300s", what, a.Status, a.Header.Get("Content-Type"), a.Body)
	}
	return p
}

func badRequests(t *testing.T, d *kit.Dev) {
	for _, c := range []struct {
		what, method, path, body string
		header                   http.Header
		status                   int
	}{
		{"no token", "GET", "/v1/streams", "", http.Header{"Authorization": nil}, 401},
		{"wrong token", "GET", "/v1/streams", "", http.Header{"Authorization": {"Bearer wrong"}}, 401},
		{"the token as a basic password", "GET", "/v1/streams", "", http.Header{"Authorization": {"Basic " + d.Token}}, 401},
		{"admin token on an internal route", "PUT", "/internal/v1/ingest/nodes/one", "{}", nil, 401},
		{"no such route", "GET", "/v1/nothing", "", nil, 404},
		{"no such stream", "GET", "/v1/streams/nobody", "", nil, 404},
		{"wrong method", "DELETE", "/v1/streams", "", nil, 405},
		{"not JSON", "POST", "/v1/streams", "{", nil, 400},
		{"two documents", "POST", "/v1/streams", `{"id":"a"}{"id":"b"}`, nil, 400},
		{"a list", "POST", "/v1/streams", "[]", nil, 400},
		{"null", "POST", "/v1/streams", "null", nil, 0},
		{"an unknown field", "POST", "/v1/streams", `{"id":"a1","admin":true}`, nil, 400},
		{"a wrong type", "POST", "/v1/streams", `{"id":7}`, nil, 400},
		{"a number out of range", "POST", "/v1/streams", `{"id":"a1","window_seconds":1e9}`, nil, 0},
		{"a negative number", "POST", "/v1/streams", `{"id":"a1","grace_seconds":-1}`, nil, 0},
		{"not a number", "POST", "/v1/streams", `{"id":"a1","grace_seconds":NaN}`, nil, 400},
		{"no id", "POST", "/v1/streams", `{}`, nil, 0},
		{"a duplicate", "POST", "/v1/streams", `{"id":"sound"}`, nil, 409},
		{"an unknown profile", "POST", "/v1/streams", `{"id":"a1","profile":"nothing"}`, nil, 0},
		{"a huge body", "POST", "/v1/streams", `{"id":"a1","name":"` + strings.Repeat("x", 8<<20) + `"}`, nil, 0},
		{"deep nesting", "POST", "/v1/streams", strings.Repeat("[", 100_000), nil, 0},
		{"a limit out of range", "GET", "/v1/streams?limit=100000", "", nil, 400},
		{"a limit that is none", "GET", "/v1/streams?limit=x", "", nil, 400},
		{"changing a built-in profile", "PUT", "/v1/profiles/720p", `{"video":[{"name":"a","width":2,"height":2,"bitrate":1}]}`, nil, 0},
		{"a profile in use", "DELETE", "/v1/profiles/e2e", "", nil, 409},
		{"a stale version", "PATCH", "/v1/streams/sound", `{"name":"x"}`, http.Header{"If-Match": {`"999"`}}, 412},
		{"an id that climbs", "GET", "/v1/streams/..%2f..%2fprofiles", "", nil, 0},
		{"an empty profile", "PUT", "/v1/profiles/empty", `{}`, nil, 0},
		{"an odd keyframe interval", "PUT", "/v1/profiles/odd", `{"segment_seconds":2,"video":[{"name":"a","width":640,"height":360,"bitrate":100000,"keyframe_seconds":1.3}]}`, nil, 0},
		{"two rungs of one name", "PUT", "/v1/profiles/twins", `{"video":[{"name":"a","width":640,"height":360,"bitrate":100000},{"name":"a","width":320,"height":180,"bitrate":100000}]}`, nil, 0},
		{"a size of nothing", "PUT", "/v1/profiles/flat", `{"video":[{"name":"a","width":0,"height":-2,"bitrate":100000}]}`, nil, 0},
		{"an enormous size", "PUT", "/v1/profiles/wide", `{"video":[{"name":"a","width":2000000000,"height":2000000000,"bitrate":9000000000000000000}]}`, nil, 0},
	} {
		a, err := d.Raw(c.method, c.path, []byte(c.body), c.header)
		if err != nil {
			if len(c.body) > 1<<20 {
				continue // the connection may be closed while we still send
			}
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		isProblem(t, c.what, a)
		if c.status != 0 && a.Status != c.status {
			t.Errorf("%s: %d, not %d: %.200s", c.what, a.Status, c.status, a.Body)
		}
	}
}

// separators puts everything that GPAC, ffmpeg, a shell, a path or a log could
// take for more than text into every string field of the API.
func separators(t *testing.T, d *kit.Dev) {
	evil := []string{"a:b", "a#b", "a,b", "a@b", "a=b", "a$Number$", "a&b", "a|b", "a;b", "a b", "a\tb", "a\nb", "a\x00b", "../a", "a/b", `a\b`,
		"$(id)", "`id`", "a%2fb", "a'b", `a"b`, "a?b", "a*b", "-a", "a-", ".", "..", "é", "a\u202eb", "A", strings.Repeat("a", 64), ":gpac:", "a:gpac:o=/tmp/x", ""}
	profile := func(change func(p *kit.ProfileSpec)) []byte {
		p := kit.SmallLadder()
		change(&p)
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	stream := func(field, v string) []byte {
		m := map[string]string{"id": "fresh", field: v}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, v := range evil {
		for _, c := range []struct {
			what, method, path string
			body               []byte
			emptyOK            bool
		}{
			{"stream id", "POST", "/v1/streams", stream("id", v), false},
			{"stream profile", "POST", "/v1/streams", stream("profile", v), true},
			{"profile name in the path", "PUT", "/v1/profiles/" + escape(v), profile(func(*kit.ProfileSpec) {}), false},
			{"rendition name", "PUT", "/v1/profiles/fresh", profile(func(p *kit.ProfileSpec) { p.Video[0].Name = v }), false},
			{"codec", "PUT", "/v1/profiles/fresh", profile(func(p *kit.ProfileSpec) { p.Video[0].Codec = v }), true},
			{"preset", "PUT", "/v1/profiles/fresh", profile(func(p *kit.ProfileSpec) { p.Video[0].Preset = v }), true},
			{"audio name", "PUT", "/v1/profiles/fresh", profile(func(p *kit.ProfileSpec) { p.Audio[0].Name = v }), false},
			{"audio codec", "PUT", "/v1/profiles/fresh", profile(func(p *kit.ProfileSpec) { p.Audio[0].Codec = v }), true},
		} {
			if v == "" && c.emptyOK {
				continue
			}
			a, err := d.Raw(c.method, c.path, c.body, nil)
			if err != nil {
				t.Errorf("%s %q: %v", c.what, v, err)
				continue
			}
			isProblem(t, fmt.Sprintf("%s %q", c.what, v), a)
			if a.Status < 300 {
				_, _ = d.Raw("DELETE", "/v1/streams/fresh", nil, nil)
				_, _ = d.Raw("DELETE", "/v1/profiles/fresh", nil, nil)
			}
		}
		// The display name is free text; it must come back as it was, or be refused.
		if a, err := d.Raw("POST", "/v1/streams", stream("name", v), nil); err != nil {
			t.Errorf("stream name %q: %v", v, err)
		} else if a.Status >= 300 {
			isProblem(t, fmt.Sprintf("stream name %q", v), a)
		} else {
			var s struct{ Name string }
			if json.Unmarshal(a.Body, &s) != nil || s.Name != v && v != "" {
				t.Errorf("stream name %q came back as %q", v, s.Name)
			}
			_, _ = d.Raw("DELETE", "/v1/streams/fresh", nil, nil)
		}
	}
}

func escape(v string) string {
	var b strings.Builder
	for _, c := range []byte(v) {
		fmt.Fprintf(&b, "%%%02x", c)
	}
	return b.String()
}

// badPublishers connect and send nothing, garbage, or a sound beginning and
// then garbage.
func badPublishers(t *testing.T, d *kit.Dev) {
	addr := func(u string) string {
		u = u[strings.Index(u, "//")+2:]
		host, _, _ := strings.Cut(u, "/")
		return host
	}
	noise := make([]byte, 256<<10)
	_, _ = rand.Read(noise)
	var open []net.Conn
	for _, c := range []struct{ network, addr string }{
		{"tcp", addr(d.RTMP)}, {"tcp", addr(d.RTSP)}, {"tcp", addr(d.WHIP)}, {"udp", addr(d.SRT)},
	} {
		for _, what := range [][]byte{nil, noise, []byte("GET / HTTP/1.1\r\n\r\n"), noise[:7]} {
			conn, err := net.DialTimeout(c.network, c.addr, 5*time.Second)
			if err != nil {
				t.Errorf("%s: %v", c.addr, err)
				continue
			}
			open = append(open, conn)
			_ = conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
			for len(what) > 0 {
				n := min(len(what), 1200)
				if _, err := conn.Write(what[:n]); err != nil {
					break
				}
				what = what[n:]
			}
		}
	}
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()

	t.Run("damaged media", func(t *testing.T) {
		key := newStream(t, d, kit.StreamSpec{ID: "damaged", Grace: 1})
		argv := append([]string{kit.FFmpeg(t)}, kit.Picture{}.Args()...)
		argv = append(argv, "-bsf:v", "noise=amount=20", "-bsf:a", "noise=amount=20")
		pub := kit.Start(t, "publisher", append(argv, d.RTMPTarget("damaged", key)...))
		// What the noise hits differs each time: it is tried, or mediamtx finds the
		// stream unreadable first and closes the publisher.
		kit.Eventually(t, goesLive, "the damaged media being tried or sent away", func() error {
			if !pub.Running() {
				return nil
			}
			s, err := d.Status("damaged")
			if err == nil && !slices.Contains([]string{"failing", "live", "starting"}, s.State) {
				err = fmt.Errorf("its state is %s", s.State)
			}
			return err
		})
		pub.Kill()
		waitState(t, d, "damaged", goesLive, "offline")
		kit.Eventually(t, aWhile, "its GPAC being gone", func() error {
			if ps := d.GPACs(); len(ps) != 1 {
				return fmt.Errorf("%v", ps)
			}
			return nil
		})
	})
	t.Run("no media", func(t *testing.T) {
		key := newStream(t, d, kit.StreamSpec{ID: "mute", Grace: 1})
		// The handshake and the key are sound; not one frame follows.
		argv := []string{kit.FFmpeg(t), "-hide_banner", "-nostdin", "-loglevel", "warning", "-re", "-f", "lavfi",
			"-i", "testsrc2=size=64x64:rate=0.01", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"}
		pub := kit.Start(t, "publisher", append(argv, d.RTMPTarget("mute", key)...))
		kit.Eventually(t, goesLive, "the publisher being seen or sent away", func() error {
			if !pub.Running() {
				return nil
			}
			s, err := d.Status("mute")
			if err == nil && s.State == "live" {
				err = fmt.Errorf("it is live without a frame")
			}
			return err
		})
		pub.Kill()
		waitState(t, d, "mute", goesLive, "offline")
	})
}
