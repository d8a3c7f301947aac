package origin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func liveWorld(t *testing.T) (*world, testRun) {
	w := newWorld(t, makeMedia(t, 4), newFakeStore(), nil)
	r := w.start(placement("demo", 1, time.Now()), 1)
	r.inits(all...)
	r.segment(1, all...)
	w.eventually("/live/demo/master.m3u8", 200, nil)
	return w, r
}

// raw sends a request line as it is, which no client would.
func raw(t *testing.T, addr, target string) (int, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: origin\r\nConnection: close\r\n\r\n", target)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

func TestPathsThatLeadNowhere(t *testing.T) {
	w, r := liveWorld(t)
	r.write("secret.txt", []byte("secret"))
	srv := httptest.NewServer(w.origin)
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	if code, _ := raw(t, addr, "/live/demo/seg/e1r1/180p/1.m4s"); code != 200 {
		t.Fatalf("the plain path answers %d", code)
	}
	for _, target := range []string{
		"/", "/live", "/live/", "/live/demo", "/live/demo/", "/live//master.m3u8", "//live/demo/master.m3u8",
		"/live/other/master.m3u8", "/live/demo/master.m3u8/", "/live/demo//master.m3u8", "/live/demo/./master.m3u8",
		"/live/demo/../demo/master.m3u8", "/live/demo/seg/../master.m3u8", "/live/demo/%6daster.m3u8", "/live/demo/master%2em3u8",
		"/live/demo/seg/e1r1/180p/../../../../../../etc/passwd", "/live/demo/seg/e1r1/180p/%2e%2e/%2e%2e/secret.txt",
		"/live/demo/seg/e1r1/180p/..%2f..%2fsecret.txt", "/live/demo/seg/e1r1/180p/%2fetc%2fpasswd", "/live/demo/seg//etc/passwd",
		"/live/demo/seg/e1r1/180p/1.m4s%00", "/live/demo/seg/e1r1/180p/01.m4s", "/live/demo/seg/e1r1/180p/+1.m4s", "/live/demo/seg/e1r1/180p/1.m4s.",
		"/live/demo/seg/e01r1/180p/1.m4s", "/live/demo/seg/e1r1/180P/1.m4s", "/live/demo/seg/e1r1/secret.txt", "/live/demo/secret.txt",
		"/live/demo/seg/e1r1/180p/2.m4s", "/live/demo/seg/e1r1/180p/180p_1.m4s", "/live/demo/seg/e9r1/180p/1.m4s",
		"/live/demo\\master.m3u8", "/LIVE/demo/master.m3u8", "/live/demo/seg/", "/live/demo/seg", "/live/demo/nope/index.m3u8",
		"http://elsewhere/live/demo/seg/e1r1/180p/../1.m4s",
	} {
		code, body := raw(t, addr, target)
		if code != http.StatusNotFound && code != http.StatusBadRequest || strings.Contains(body, "secret") || strings.Contains(body, "root:") {
			t.Errorf("%s: %d %q", target, code, body)
		}
	}
}

func TestHeaders(t *testing.T) {
	w, _ := liveWorld(t)
	for path, code := range map[string]int{"/live/demo/master.m3u8": 200, "/live/other/master.m3u8": 404, "/live/demo/seg/e1r1/180p/9.m4s": 404, "/": 404} {
		if res := w.do("GET", path); res.code != code || res.header.Get(HeaderOrigin) != "w1" {
			t.Errorf("%s: %d of origin %q", path, res.code, res.header.Get(HeaderOrigin))
		}
	}
	for _, tc := range []struct{ path, contentType, cache string }{
		{"master.m3u8", typeHLS, "no-cache"},
		{"180p/index.m3u8", typeHLS, "no-cache"},
		{"manifest.mpd", typeDASH, "no-cache"},
		{"seg/e1r1/180p/init.mp4", "video/mp4", cacheSegment},
		{"seg/e1r1/aac/init.mp4", "audio/mp4", cacheSegment},
		{"seg/e1r1/180p/1.m4s", "video/mp4", cacheSegment},
		{"seg/e1r1/aac/1.m4s", "audio/mp4", cacheSegment},
	} {
		path := "/live/demo/" + tc.path
		res := w.do("GET", path)
		full, h := res.body, res.header
		if res.code != 200 || h.Get("Content-Type") != tc.contentType || h.Get("Cache-Control") != tc.cache ||
			h.Get("Access-Control-Allow-Origin") != "*" || h.Get("ETag") == "" {
			t.Errorf("%s: %d %v", tc.path, res.code, h)
		}
		head := w.do("HEAD", path)
		if b := head.body; len(b) != 0 || head.header.Get("Content-Length") != fmt.Sprint(len(full)) {
			t.Errorf("HEAD %s: %d bytes, %v", tc.path, len(b), head.header)
		}
		if again := w.do("GET", path, "If-None-Match", h.Get("ETag")); again.code != http.StatusNotModified {
			t.Errorf("%s with its ETag: %d", tc.path, again.code)
		}
		if post := w.do("POST", path); post.code != http.StatusMethodNotAllowed || post.header.Get("Allow") == "" {
			t.Errorf("POST %s: %d", tc.path, post.code)
		}
		opt := w.do("OPTIONS", path)
		if opt.code != http.StatusNoContent || !strings.Contains(opt.header.Get("Access-Control-Allow-Headers"), "Range") {
			t.Errorf("OPTIONS %s: %d %v", tc.path, opt.code, opt.header)
		}
		if strings.HasPrefix(tc.path, "seg/") {
			part := w.do("GET", path, "Range", "bytes=10-19")
			if b := part.body; part.code != http.StatusPartialContent || string(b) != string(full[10:20]) {
				t.Errorf("range of %s: %d, %d bytes", tc.path, part.code, len(b))
			}
			if out := w.do("GET", path, "Range", fmt.Sprintf("bytes=%d-", len(full))); out.code != http.StatusRequestedRangeNotSatisfiable {
				t.Errorf("range past the end of %s: %d", tc.path, out.code)
			}
		} else if h.Get(HeaderEpoch) != "1" {
			t.Errorf("%s names epoch %q", tc.path, h.Get(HeaderEpoch))
		}
	}
	if v := w.do("GET", "/live/demo/180p/index.m3u8").header.Get(HeaderVersion); v != "1.1.1" {
		t.Errorf("version %q", v)
	}
}

// A request from a viewer must not be able to fence a stream where the origin
// can be reached by viewers.
func TestEpochIsVerified(t *testing.T) {
	w, _ := liveWorld(t)
	var asked []string
	w.origin.cfg.VerifyEpoch = func(id string, epoch uint64, header string) bool {
		asked = append(asked, fmt.Sprintf("%s %d %s", id, epoch, header))
		return strings.HasSuffix(header, ";good")
	}
	for _, header := range []string{"9", "9;bad", "x", "-1", "99999999999999999999999"} {
		if code, _ := w.get("/live/demo/master.m3u8", HeaderEpoch, header); code != 200 {
			t.Errorf("%q fenced: %d", header, code)
		}
	}
	if code, _ := w.get("/live/demo/master.m3u8", HeaderEpoch, "9;good"); code != http.StatusGone {
		t.Errorf("a verified epoch: %d (asked %q)", code, asked)
	}
}
