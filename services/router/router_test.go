package router_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/router"
	"github.com/dionysia-dev/dionysia/services/stream"
)

const (
	index   = "/live/s/720p/index.m3u8"
	segment = "/live/s/seg/e1r1/720p/7.m4s"
)

func TestNoSuchStreamAndNotLive(t *testing.T) {
	w := newWorld(t, router.Config{})
	w.routes.put("idle", stream.Route{})
	for _, path := range []string{"/live/none/master.m3u8", "/live/none/manifest.mpd", "/live/none/seg/e1r1/720p/1.m4s"} {
		if a := w.get(path); a.code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, a.code)
		}
	}
	a := w.get("/live/idle/master.m3u8")
	if a.code != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("not live: %d %v, want 503 with Retry-After", a.code, a.header)
	}
	// A stream that is created is found within the negative TTL.
	w.routes.put("none", stream.Route{})
	w.is("/live/none/master.m3u8", http.StatusServiceUnavailable, "not live")
}

func TestFollowsTheOriginByDNS(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	o.playlist(index, "e1r1", 10, "")
	w.is(index, http.StatusOK, "10.m4s")
	if got := o.epoch(index); got != "1" {
		t.Errorf("origin was told epoch %q, want 1", got)
	}
	// The worker comes back on another port: only DNS says so.
	o.kill()
	if err := o.reg.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.listen()
	o.playlist(index, "e1r1", 11, "")
	o.register(w.consul)
	w.is(index, http.StatusOK, "11.m4s")
	// A worker that moves without its old address failing is followed by TTL.
	old := o.server
	defer old.Close()
	before := time.Now()
	o.listen()
	if err := o.reg.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.register(w.consul)
	w.inDNS(o)
	o.playlist(index, "e1r1", 12, "")
	moved := fmt.Sprintf("127.0.0.1:%d", o.port)
	eventually(t, "requests at the new address", func() error {
		host := make(chan string, 1)
		o.handle("/live/s/720p/index.m3u8", func(rw http.ResponseWriter, r *http.Request) {
			select {
			case host <- r.Host:
			default:
			}
			_, _ = io.WriteString(rw, playlist("e1r1", 12))
		})
		w.get(index)
		select {
		case h := <-host:
			if h == moved {
				return nil
			}
			return fmt.Errorf("asked at %s", h)
		default:
			return fmt.Errorf("not asked")
		}
	})
	t.Logf("followed after %v", time.Since(before))
}

func TestConsulAndStoreAway(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	o.playlist(index, "e1r1", 10, "")
	w.is(index, http.StatusOK, "10.m4s")
	w.consul.Kill()
	w.routes.setAway(true)
	for n := 11; n < 14; n++ { // the stream goes on
		o.playlist(index, "e1r1", n, "")
		w.is(index, http.StatusOK, fmt.Sprintf("%d.m4s", n))
	}
	if a := w.get("/readyz"); a.code != http.StatusOK {
		t.Errorf("readyz with a known route: %d %s", a.code, a.body)
	}
	// What was never known can't be told from what does not exist: not a 404.
	if a := w.get("/live/other/master.m3u8"); a.code != http.StatusServiceUnavailable {
		t.Errorf("unknown stream with the store away: %d, want 503", a.code)
	}
}

func TestOriginKilled(t *testing.T) {
	w := newWorld(t, router.Config{})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	o.handle("/live/s/master.m3u8", func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n720p/index.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n360p/index.m3u8\n")
	})
	const other = "/live/s/360p/index.m3u8"
	o.playlist(index, "e1r1", 10, "")
	o.handle(other, func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, strings.ReplaceAll(playlist("e1r1", 10), "720p", "360p"))
	})
	last := "/live/s/seg/e1r1/360p/10.m4s"
	for n := 6; n <= 10; n++ {
		for _, rendition := range []string{"720p", "360p"} {
			o.bytes(fmt.Sprintf("/live/s/seg/e1r1/%s/%d.m4s", rendition, n), []byte(fmt.Sprintf("%s-%d", rendition, n)))
		}
	}
	w.is("/live/s/master.m3u8", http.StatusOK, "360p")
	// Nobody asked for 360p; it is kept warm because the stream is watched.
	eventually(t, "prefetched", func() error {
		if o.count(last) == 0 || o.count(other) == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	w.is(index, http.StatusOK, "10.m4s")
	o.kill()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		for _, path := range []string{"/live/s/master.m3u8", index, other} {
			if a := w.quick(path); a.code != http.StatusOK {
				t.Fatalf("%s with the origin gone: %d %s", path, a.code, a.body)
			}
		}
		if a := w.get(last); a.code != http.StatusOK || a.body != "360p-10" {
			t.Fatalf("segment with the origin gone: %d %q", a.code, a.body)
		}
	}
	if a := w.get(index); a.header.Get("Dionysia-Stale") == "" {
		t.Error("a stale manifest does not say so")
	}
	// The broadcast ends and its window passes: no longer.
	r := live("w1", 1)
	r.Live = false
	w.routes.put("s", r)
	if a := w.get(index); a.code != http.StatusOK {
		t.Errorf("within the window after the end: %d", a.code)
	}
	w.routes.remove("s")
	w.routes.changes <- "s"
	w.is(index, http.StatusNotFound, "no such stream")
	w.is(last, http.StatusNotFound, "no such stream")
}

func TestFencedOriginIsResolvedAgain(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o1, o2 := w.origin("w1"), w.origin("w2")
	w.routes.put("s", live("w1", 1))
	o1.playlist(index, "e1r1", 10, "")
	w.is(index, http.StatusOK, "10.m4s")
	o1.bytes(segment, []byte("old"))
	// The stream moves; the router hears of it from the fenced origin alone.
	next := live("w2", 2)
	next.Origins[1] = "w1"
	o2.playlist(index, "e1r1", 11, "")
	o2.bytes("/live/s/seg/e2r1/720p/1.m4s", []byte("new"))
	o1.handle(index, func(rw http.ResponseWriter, _ *http.Request) {
		w.routes.put("s", next) // at the very moment of being asked
		rw.WriteHeader(http.StatusGone)
	})
	w.is(index, http.StatusOK, "11.m4s")
	if got := o2.epoch(index); got != "2" {
		t.Errorf("successor was told epoch %q, want 2", got)
	}
	// Each segment comes from the origin of its epoch, which is told the higher one.
	w.is(segment, http.StatusOK, "old")
	w.is("/live/s/seg/e2r1/720p/1.m4s", http.StatusOK, "new")
	if got := o1.epoch(segment); got != "2" {
		t.Errorf("predecessor was told epoch %q, want 2", got)
	}
	// A store that goes back does not bring the fenced origin back.
	asked := o1.count(index)
	w.routes.put("s", live("w1", 1))
	w.routes.changes <- "s"
	for range 20 {
		if a := w.get(index); a.code != http.StatusOK || !strings.Contains(a.body, "11.m4s") {
			t.Fatalf("after the store went back: %d %s", a.code, a.body)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if got := o1.count(index); got != asked {
		t.Errorf("the fenced origin was asked %d times more for manifests", got-asked)
	}
}

func TestOneUpstreamRequest(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	release := make(chan struct{})
	o.handle(segment, func(rw http.ResponseWriter, _ *http.Request) {
		<-release
		rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = rw.Write(body)
	})
	// The first client leaves before the origin has answered.
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = do(ctx, http.MethodGet, w.base+segment)
	}()
	eventually(t, "upstream asked", func() error {
		if o.count(segment) == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	leave()
	<-gone
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			a, err := do(t.Context(), http.MethodGet, w.base+segment)
			if err != nil || a.code != http.StatusOK || a.body != string(body) {
				t.Errorf("got %d, %d bytes, %v", a.code, len(a.body), err)
			}
		})
	}
	time.AfterFunc(100*time.Millisecond, func() { close(release) })
	wg.Wait()
	if n := o.count(segment); n != 1 {
		t.Errorf("%d upstream requests, want 1", n)
	}
}

func TestSlowFillIsStreamed(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	step := make(chan struct{})
	o.handle(segment, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "10")
		for _, part := range []string{"01234", "56789"} {
			_, _ = io.WriteString(rw, part)
			rw.(http.Flusher).Flush()
			<-step
		}
	})
	resp, err := http.Get(w.base + segment)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "01234" {
		t.Fatalf("first part: %q %v", first, err)
	}
	// A range that has arrived is served while the rest has not.
	if a := w.get(segment, "Range", "bytes=1-3"); a.code != http.StatusPartialContent || a.body != "123" {
		t.Errorf("range while filling: %d %q", a.code, a.body)
	}
	step <- struct{}{}
	step <- struct{}{}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(rest) != "56789" {
		t.Fatalf("rest: %q %v", rest, err)
	}
}

func TestBrokenFillIsNotServedAsWhole(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	o.handle(segment, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(rw, "01234")
		panic(http.ErrAbortHandler)
	})
	if a, err := do(t.Context(), http.MethodGet, w.base+segment); err == nil && a.code == http.StatusOK {
		t.Fatalf("a torn segment was served whole: %q", a.body)
	}
	o.bytes(segment, []byte("0123456789"))
	w.is(segment, http.StatusOK, "0123456789")
}

func TestSegmentAnswers(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	o.bytes(segment, []byte("0123456789"))
	full := w.get(segment)
	tag := full.header.Get("Etag")
	for name, want := range map[string]string{
		"Content-Type": "video/mp4", "Content-Length": "10", "Accept-Ranges": "bytes",
		"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=3600, immutable",
	} {
		if got := full.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	cases := []struct {
		name, method string
		header       []string
		code         int
		body, rng    string
	}{
		{"middle", "GET", []string{"Range", "bytes=2-4"}, 206, "234", "bytes 2-4/10"},
		{"open", "GET", []string{"Range", "bytes=7-"}, 206, "789", "bytes 7-9/10"},
		{"last", "GET", []string{"Range", "bytes=-2"}, 206, "89", "bytes 8-9/10"},
		{"last of more", "GET", []string{"Range", "bytes=-99"}, 206, "0123456789", "bytes 0-9/10"},
		{"past the end", "GET", []string{"Range", "bytes=5-99"}, 206, "56789", "bytes 5-9/10"},
		{"after the end", "GET", []string{"Range", "bytes=10-"}, 416, "range not satisfiable\n", "bytes */10"},
		{"none of it", "GET", []string{"Range", "bytes=-0"}, 416, "range not satisfiable\n", "bytes */10"},
		{"backwards", "GET", []string{"Range", "bytes=4-2"}, 200, "0123456789", ""},
		{"several", "GET", []string{"Range", "bytes=0-1,3-4"}, 200, "0123456789", ""},
		{"garbage", "GET", []string{"Range", "bytes=x-y"}, 200, "0123456789", ""},
		{"huge", "GET", []string{"Range", "bytes=0-99999999999999999999"}, 200, "0123456789", ""},
		{"if-range of another", "GET", []string{"Range", "bytes=2-4", "If-Range", `"x"`}, 200, "0123456789", ""},
		{"if-range", "GET", []string{"Range", "bytes=2-4", "If-Range", tag}, 206, "234", "bytes 2-4/10"},
		{"known", "GET", []string{"If-None-Match", tag}, 304, "", ""},
		{"head", "HEAD", nil, 200, "", ""},
		{"head of a range", "HEAD", []string{"Range", "bytes=2-4"}, 206, "", "bytes 2-4/10"},
		{"preflight", "OPTIONS", nil, 204, "", ""},
		{"post", "POST", nil, 405, "method not allowed\n", ""},
		{"delete", "DELETE", nil, 405, "method not allowed\n", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a := w.do(c.method, segment, c.header...)
			if a.code != c.code || a.body != c.body || a.header.Get("Content-Range") != c.rng {
				t.Errorf("got %d %q %q, want %d %q %q", a.code, a.body, a.header.Get("Content-Range"), c.code, c.body, c.rng)
			}
		})
	}
	if n := o.count(segment); n != 1 {
		t.Errorf("%d upstream requests, want 1", n)
	}
	if a := w.get("/live/s/seg/e1r1/720p/8.m4s"); a.code != 404 {
		t.Errorf("missing segment: %d", a.code)
	}
	o.bytes("/live/s/seg/e1r1/720p/8.m4s", []byte("8"))
	w.is("/live/s/seg/e1r1/720p/8.m4s", 200, "8")
	if a := w.get("/live/s/seg/e9r1/720p/8.m4s"); a.code != 404 {
		t.Errorf("segment of an epoch that never was: %d", a.code)
	}
}
