package router_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/router"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestManifestsNeverGoBack(t *testing.T) {
	t.Parallel() // it waits most of its time
	for _, header := range []bool{true, false} {
		t.Run(fmt.Sprintf("header %v", header), func(t *testing.T) {
			w := newWorld(t, router.Config{NoPrefetch: true, ManifestTTL: 10 * time.Millisecond})
			o := w.origin("w1")
			w.routes.put("s", live("w1", 1))
			var n atomic.Int64
			n.Store(50)
			o.handle(index, func(rw http.ResponseWriter, _ *http.Request) {
				n := int(n.Load()) - rand.IntN(4) // an origin that has lost its mind
				if header {
					rw.Header().Set("Dionysia-Version", fmt.Sprintf("1.1.%d", n))
				}
				_, _ = io.WriteString(rw, playlist("e1r1", n))
			})
			w.is(index, http.StatusOK, "m4s")
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					last := 0
					for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
						a, err := do(t.Context(), http.MethodGet, w.base+index)
						if err != nil || a.code != http.StatusOK {
							t.Errorf("got %d, %v", a.code, err)
							return
						}
						got := sequence(a.body)
						if got < last {
							t.Errorf("media sequence went from %d to %d", last, got)
							return
						}
						last = got
						n.Add(1)
					}
					if last <= 50 {
						t.Error("nothing new was served")
					}
				})
			}
			wg.Wait()
		})
	}
}

func sequence(body string) int {
	_, rest, _ := strings.Cut(body, "#EXT-X-MEDIA-SEQUENCE:")
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.Atoi(line)
	return n
}

func TestGarbageFromTheOriginIsNotServed(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true, ManifestTTL: time.Millisecond})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	o.playlist(index, "e1r1", 10, "")
	w.is(index, http.StatusOK, "10.m4s")
	for name, h := range map[string]http.HandlerFunc{
		"error":    func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(500) },
		"missing":  func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(404) },
		"not live": func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(503) },
		"empty":    func(rw http.ResponseWriter, _ *http.Request) {},
		"html":     func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "<html>") },
		"elsewhere": func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "http://127.0.0.1:1/", http.StatusFound)
		},
		"torn": func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "9999")
			_, _ = io.WriteString(rw, playlist("e1r1", 99))
			panic(http.ErrAbortHandler)
		},
		"endless": func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, "#EXTM3U\n"+strings.Repeat("#\n", 3<<20))
		},
		"frozen": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	} {
		t.Run(name, func(t *testing.T) {
			before := o.count(index)
			o.handle(index, h)
			eventually(t, "origin asked", func() error {
				a := w.get(index)
				if a.code != http.StatusOK || !strings.Contains(a.body, "10.m4s") {
					t.Fatalf("got %d %.200s", a.code, a.body)
				}
				if o.count(index) == before {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			if a := w.get(index); a.code != http.StatusOK || !strings.Contains(a.body, "10.m4s") {
				t.Fatalf("afterwards %d %.200s", a.code, a.body)
			}
		})
	}
}

func TestByteLimit(t *testing.T) {
	const limit = 1 << 20
	w := newWorld(t, router.Config{NoPrefetch: true, CacheBytes: limit})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	body := strings.Repeat("x", 100<<10)
	path := func(n int) string { return fmt.Sprintf("/live/s/seg/e1r1/720p/%d.m4s", n) }
	for n := 1; n <= 40; n++ {
		o.bytes(path(n), []byte(body))
	}
	o.bytes(path(99), make([]byte, limit/4+1))
	o.handle(path(98), func(rw http.ResponseWriter, _ *http.Request) { // of no announced length
		for range 3 {
			_, _ = io.WriteString(rw, body[:50<<10])
			rw.(http.Flusher).Flush()
		}
	})
	stop := make(chan struct{})
	var over atomic.Int64
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if a, err := do(t.Context(), http.MethodGet, w.base+"/metrics"); err == nil {
				if used := metric(a.body, "dionysia_router_segment_bytes"); used > limit {
					over.Store(int64(used))
				}
			}
		}
	}()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 60 {
				a, err := do(t.Context(), http.MethodGet, w.base+path(1+rand.IntN(40)))
				if err != nil || (a.code == http.StatusOK && a.body != body) || (a.code != http.StatusOK && a.code != http.StatusServiceUnavailable) {
					t.Errorf("got %d, %d bytes, %v", a.code, len(a.body), err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	<-watched
	if n := over.Load(); n > 0 {
		t.Errorf("%d bytes of segments, limit %d", n, limit)
	}
	if a := w.get(path(99)); a.code != http.StatusServiceUnavailable {
		t.Errorf("segment over the limit: %d", a.code)
	}
	eventually(t, "a segment of unknown length", func() error { // those who have just been served may hold theirs for a moment
		a := w.get(path(98))
		if a.code != http.StatusOK || len(a.body) != 150<<10 || a.header.Get("Content-Length") != strconv.Itoa(150<<10) {
			return fmt.Errorf("%d, %d bytes", a.code, len(a.body))
		}
		return nil
	})
}

// metric reads a metric without labels.
func metric(body, name string) float64 {
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			f, _ := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return f
		}
	}
	return -1
}

func TestRedirectMode(t *testing.T) {
	w := newWorld(t, router.Config{Mode: router.ModeRedirect})
	o := w.origin("w2")
	o1 := w.origin("w1")
	r := live("w2", 2)
	r.Origins[1] = "w1"
	w.routes.put("s", r)
	w.routes.put("idle", stream.Route{})
	for path, want := range map[string]string{
		index:                            fmt.Sprintf("http://127.0.0.1:%d%s", o.port, index),
		"/live/s/seg/e2r1/720p/1.m4s":    fmt.Sprintf("http://127.0.0.1:%d/live/s/seg/e2r1/720p/1.m4s", o.port),
		segment:                          fmt.Sprintf("http://127.0.0.1:%d%s", o1.port, segment),
		"/live/s/manifest.mpd?x=http://": fmt.Sprintf("http://127.0.0.1:%d/live/s/manifest.mpd", o.port),
	} {
		a := w.get(path)
		if a.code != http.StatusTemporaryRedirect || a.header.Get("Location") != want || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d to %q, want %q", path, a.code, a.header.Get("Location"), want)
		}
	}
	for path, want := range map[string]int{"/live/none/master.m3u8": 404, "/live/idle/master.m3u8": 503, "/live/s/seg/e7r1/720p/1.m4s": 404} {
		if a := w.get(path); a.code != want {
			t.Errorf("%s: %d, want %d", path, a.code, want)
		}
	}
}

func TestBadRequestsOverTheWire(t *testing.T) {
	w := newWorld(t, router.Config{})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("leaked"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{
		"/live/../../../../.." + secret, "/live/demo/..%2f..%2f..%2f..%2f" + secret, "/live//" + secret,
		"/assets/../../../.." + secret, "/assets/..%2f..%2f" + secret, "/assets//" + secret, "/assets/%2e%2e/web/index.html",
		"/live/demo/%00", "/live/demo/%2e%2e/master.m3u8", "/live/demo/%252e/x", "//" + secret, "/watch/../" + secret, "/watch/%2e%2e",
		"/watch/<script>", "/" + strings.Repeat("a", 4000), "/live/" + strings.Repeat("a/", 4000), "http://127.0.0.1:1" + secret,
		"*", "/live/demo/seg/e1r1/720p/1.m4s\x00", "/live/demo/\xff\xfe", "",
	} {
		a := raw(t, w, "GET "+target+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(a, "HTTP/1.1 4") || strings.Contains(a, "leaked") {
			t.Errorf("%.100q answered %.200q", target, a)
		}
	}
	huge := "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 64<<10) + "\r\n\r\n"
	if a := raw(t, w, huge); !strings.HasPrefix(a, "HTTP/1.1 431") {
		t.Errorf("huge header answered %.100q", a)
	}
}

// raw sends bytes and returns what comes back until the router closes.
func raw(t *testing.T, w *world, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", w.router.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(deadline))
	_, _ = io.WriteString(conn, request)
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

func TestPagesTimeAndHealth(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hls.min.js"), []byte("// player"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, router.Config{WebDir: dir})
	for path, part := range map[string]string{
		"/": "Dionysia", "/watch/demo": "watch.js", "/assets/hls.min.js": "// player",
		"/assets/watch.js": "Hls", "/assets/page.css": "video", "/metrics": "dionysia_router_segments 0",
		"/healthz": "ok", "/readyz": "ok",
	} {
		if a := w.get(path); a.code != http.StatusOK || !strings.Contains(a.body, part) {
			t.Errorf("%s: %d %.100s", path, a.code, a.body)
		}
	}
	page := w.get("/watch/demo")
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "http") {
		t.Errorf("policy %q", csp)
	}
	if strings.Contains(page.body, "http://") || strings.Contains(page.body, "https://") {
		t.Error("the page has an outside address")
	}
	a := w.get("/time")
	at, err := time.Parse(time.RFC3339Nano, a.body)
	if err != nil || time.Since(at).Abs() > time.Minute || !strings.HasSuffix(a.body, "Z") || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("time %q: %v", a.body, err)
	}
	if a := w.get("/assets/dash.all.min.js"); a.code != http.StatusNotFound {
		t.Errorf("a player that is not there: %d", a.code)
	}
	w.routes.setAway(true)
	if a := w.get("/readyz"); a.code != http.StatusServiceUnavailable {
		t.Errorf("readyz without store and routes: %d", a.code)
	}
	if a := w.get("/healthz"); a.code != http.StatusOK {
		t.Errorf("healthz: %d", a.code)
	}
}

func TestStopDrains(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	step := make(chan struct{})
	o.handle(segment, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(rw, "01234")
		rw.(http.Flusher).Flush()
		<-step
		_, _ = io.WriteString(rw, "56789")
	})
	conn, err := net.Dial("tcp", w.router.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET "+segment+" HTTP/1.1\r\nHost: x\r\n\r\n")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stopped := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		stopped <- w.router.Stop(ctx)
	}()
	eventually(t, "no new connections", func() error {
		c, err := net.Dial("tcp", w.router.Addr().String())
		if err == nil {
			_ = c.Close()
			return fmt.Errorf("still taken")
		}
		return nil
	})
	if err := w.router.Ready(t.Context()); err == nil {
		t.Error("ready while draining")
	}
	close(step)
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "0123456789" {
		t.Errorf("the request in flight got %q, %v", body, err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v", err)
	}
}

// TestOnRealRedis takes the routes from the store itself.
func TestOnRealRedis(t *testing.T) {
	redis := testkit.NewRedis(t)
	st, err := store.Open(t.Context(), store.Options{StateURL: redis.URL(0), LiveURL: redis.URL(1)})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	w := &world{t: t, consul: testkit.StartConsul(t, 0)}
	w.store = st
	w.start(router.Config{NoPrefetch: true, RouteTTL: time.Second})
	o1, o2 := w.origin("w1"), w.origin("w2")
	o1.playlist(index, "e1r1", 10, "")
	o2.playlist(index, "e2r1", 11, "")
	w.is(index, http.StatusNotFound, "no such stream")
	if err := st.CreateStream(t.Context(), stream.Stream{ID: "s", Name: "s", Profile: "240p", Grace: 15, HoldBack: 12, Window: 60}, "hash"); err != nil {
		t.Fatal(err)
	}
	w.is(index, http.StatusServiceUnavailable, "not live")
	place := func(worker string, expect uint64) uint64 {
		epoch, err := st.Commit(t.Context(), store.Proposal{Limits: []capacity.Limit{{Limit: 100}}, ExpectEpoch: expect, Placement: stream.Placement{
			Stream: "s", Broadcast: "b", Worker: worker, Device: "cpu", Boot: "boot", Reserved: []stream.Reservation{{Resource: "cpu", Amount: 1}}, Window: 60, HoldBack: 12}})
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Notify(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
		return epoch
	}
	epoch := place("w1", 0)
	w.is(index, http.StatusOK, "10.m4s")
	place("w2", epoch)
	w.is(index, http.StatusOK, "11.m4s")
	redis.Kill()
	for range 10 {
		if a := w.get(index); a.code != http.StatusOK {
			t.Fatalf("with Redis gone: %d %s", a.code, a.body)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
