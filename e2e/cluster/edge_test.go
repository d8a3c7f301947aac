package cluster_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/template"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// answers is a router that answers each path with a status, 200 when none is set.
type answers struct {
	*httptest.Server
	mu    sync.Mutex
	code  map[string]int
	asked map[string]int // by method and path
	lines map[string]int // by method and what was asked for, as it came
	// injected are the values of a header that no client sends.
	injected []string
}

func newAnswers(t *testing.T) *answers {
	a := &answers{code: map[string]int{}, asked: map[string]int{}, lines: map[string]int{}}
	a.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.asked[r.Method+" "+r.URL.Path]++
		a.lines[r.Method+" "+r.RequestURI]++
		a.injected = append(a.injected, r.Header["X-Injected"]...)
		code := a.code[r.URL.Path]
		a.mu.Unlock()
		if code == 0 {
			rw.Header().Set("Cache-Control", "public, max-age=3600, immutable")
			_, _ = fmt.Fprint(rw, "bytes of "+r.URL.Path)
			return
		}
		rw.Header().Set("Cache-Control", "no-store")
		rw.WriteHeader(code)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *answers) with(path string, code int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.code[path] = code
}

func (a *answers) count(request string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked[request]
}

// edgeBefore starts nginx with the edge job's own configuration before routers.
func edgeBefore(t *testing.T, routers ...*answers) string {
	t.Helper()
	job, err := os.ReadFile(filepath.Join(kit.RepoRoot(), "nomad", "jobs", "edge.nomad.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(job), "data = <<-EOT\n")
	conf, _, ok := strings.Cut(rest, "EOT\n")
	if !ok {
		t.Fatal("no configuration in the job file")
	}
	port, err := kit.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for at := dir; at != os.TempDir(); at = filepath.Dir(at) { // its workers are not root
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf = strings.NewReplacer("${var.bind}", "127.0.0.1", "${var.port}", fmt.Sprint(port), "${var.cache_dir}", dir, "${var.cache_mib}", "64",
		"${var.nginx_user}", "nobody nogroup").Replace(conf)
	type service struct{ Address, Port string }
	tmpl, err := template.New("nginx.conf").Funcs(template.FuncMap{
		"env": func(string) string { return dir },
		"service": func(string) (out []service) {
			for _, r := range routers {
				host, port, _ := net.SplitHostPort(r.Listener.Addr().String())
				out = append(out, service{host, port})
			}
			return out
		},
	}).Parse(conf)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := tmpl.Execute(f, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	p := kit.Start(t, "nginx", []string{kit.Part(t, "DIONYSIA_NGINX", "nginx"), "-p", dir, "-e", "stderr", "-c", f.Name()})
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	kit.Eventually(t, aWhile, "the edge's health", func() error {
		if !p.Running() {
			t.Fatalf("nginx: %s: %s", p.Exit(), kit.Tail(p.Log, 2000))
		}
		_, err := kit.FetchOK(base + "/edge-health")
		return err
	})
	return base
}

// TestEdgeAsksTheNextRouter runs the edge's configuration before two routers.
func TestEdgeAsksTheNextRouter(t *testing.T) {
	a, b := newAnswers(t), newAnswers(t)
	both := []*answers{a, b}
	base := edgeBefore(t, both...)
	get := func(method, path string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	// Which router a stream has is the hash's choice: each is tried as the first.
	for i, failing := range both {
		for _, code := range []int{404, 502, 503, 504} {
			for n := range 8 {
				path := fmt.Sprintf("/live/s%d/seg/e1r1/720p/%d%d.m4s", n, i+1, code)
				failing.with(path, code)
				if got := get(http.MethodGet, path); got != http.StatusOK {
					t.Errorf("%s, which one router answers with %d: %d", path, code, got)
				}
			}
		}
	}
	total := func(request string) int { return a.count(request) + b.count(request) }
	const gone, playlist, posted = "/live/s/seg/e1r1/720p/1.m4s", "/live/s/720p/index.m3u8", "/live/s/seg/e1r1/720p/2.m4s"
	for _, r := range both {
		r.with(gone, http.StatusNotFound)
		r.with(playlist, http.StatusNotFound)
		r.with(posted, http.StatusServiceUnavailable)
	}
	for range 2 { // a 404 is not kept
		if got := get(http.MethodGet, gone); got != http.StatusNotFound {
			t.Errorf("what no router has: %d", got)
		}
	}
	if n := total("GET " + gone); n != 4 {
		t.Errorf("it was asked for %d times, want each router twice", n)
	}
	if got := get(http.MethodGet, playlist); got != http.StatusNotFound || total("GET "+playlist) != 1 {
		t.Errorf("a playlist that is not: %d, asked for %d times", got, total("GET "+playlist))
	}
	if get(http.MethodPost, posted); total("POST "+posted) != 1 {
		t.Errorf("a POST was sent %d times", total("POST "+posted))
	}
	// A stream that is not live takes no router from the others.
	for _, r := range both {
		r.with("/live/idle/master.m3u8", http.StatusServiceUnavailable)
	}
	for n := range 20 {
		if got := get(http.MethodGet, "/live/idle/master.m3u8"); got != http.StatusServiceUnavailable {
			t.Errorf("a stream that is not live: %d", got)
		}
		if got := get(http.MethodGet, fmt.Sprintf("/live/other/seg/e1r1/720p/%d.m4s", n+1)); got != http.StatusOK {
			t.Errorf("a stream that is: %d", got)
		}
	}
}

// TestEdgeTakesNoArguments shows that what is asked for with arguments is what is
// asked for without: nobody fills the cache with one segment under many names.
func TestEdgeTakesNoArguments(t *testing.T) {
	r := newAnswers(t)
	base := edgeBefore(t, r)
	for _, path := range []string{"/live/s/seg/e1r1/720p/1.m4s", "/live/s/720p/index.m3u8", "/live/s/manifest.mpd", "/watch/s", "/assets/watch.js", "/"} {
		args := []string{"", "?", "?x=1", "?x=2", "?_HLS_msn=7&_HLS_part=0", "?CMCD=bl%3D2100", "?x=%0d%0aX-Injected:%201", "??", "?a=%3f?b"}
		for _, arg := range args {
			body, err := kit.FetchOK(base + path + arg)
			if err != nil || string(body) != "bytes of "+path {
				t.Errorf("%s%s: %q, %v", path, arg, body, err)
			}
		}
		r.mu.Lock()
		if n := r.asked["GET "+path]; n != 1 {
			t.Errorf("%s was asked of the router %d times", path, n)
		}
		r.mu.Unlock()
	}
	// Nor with another spelling of the same path.
	for _, spelt := range []string{"/live/s/seg/e1r1/720p/%31.m4s", "/live//s/seg/e1r1/720p/1.m4s", "/live/s/x/../seg/e1r1/720p/./1.m4s"} {
		body, err := kit.FetchOK(base + spelt)
		if err != nil || string(body) != "bytes of /live/s/seg/e1r1/720p/1.m4s" {
			t.Errorf("%s: %q, %v", spelt, body, err)
		}
	}
	for _, odd := range []string{"/live/s/a%0d%0aX-Injected:%201/index.m3u8", "/live/s/a%20b/index.m3u8?x", "/live/s/a%3fx=1/index.m3u8"} {
		if _, err := kit.FetchOK(base + odd); err != nil {
			t.Errorf("%s: %v", odd, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range r.lines {
		if strings.Contains(line, "?") || strings.ContainsAny(strings.TrimPrefix(line, "GET "), " \r\n") {
			t.Errorf("the router was asked %q", line)
		}
	}
	if r.asked["GET /live/s/seg/e1r1/720p/1.m4s"] != 1 || len(r.injected) > 0 {
		t.Errorf("a segment was asked for %d times, injected %q", r.asked["GET /live/s/seg/e1r1/720p/1.m4s"], r.injected)
	}
}
