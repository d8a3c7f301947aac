package router

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

//go:embed web
var web embed.FS

// pagePolicy lets the page run its own scripts and nothing else; hls.js plays
// from blobs and works in a worker made of one.
const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"img-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

// asset is a static file of the watch page.
type asset struct {
	data        []byte
	contentType string
	etag        string
}

// assets by name.
type assets map[string]asset

// loadAssets reads the embedded page, and the players from dir. A player that
// dir lacks is not served; the page then says so.
func loadAssets(dir string) (assets, error) {
	as := assets{}
	add := func(name string, data []byte) {
		types := map[string]string{
			".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
			".svg": "image/svg+xml",
		}
		as[name] = asset{data: data, contentType: types[filepath.Ext(name)], etag: bodyTag(data)}
	}
	entries, err := fs.ReadDir(web, "web")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		data, err := web.ReadFile("web/" + e.Name())
		if err != nil {
			return nil, err
		}
		add(e.Name(), data)
	}
	if dir == "" {
		return as, nil
	}
	for _, name := range []string{"hls.min.js", "dash.all.min.js"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("reading player: %w", err)
		default:
			add(name, data)
		}
	}
	return as, nil
}

// serveOther answers what is not under /live/.
func (r *Router) serveOther(w *response, req *http.Request, path string) {
	switch {
	case path == "/time":
		r.serveTime(w, req)
	case path == "/":
		r.serveAsset(w, req, "index.html")
	case strings.HasPrefix(path, "/watch/") && isID(path[len("/watch/"):]):
		r.serveAsset(w, req, "watch.html")
	case strings.HasPrefix(path, "/assets/"):
		r.serveAsset(w, req, path[len("/assets/"):])
	case r.cfg.AdminListen == "" && r.serveAdmin(w, req, path):
	default:
		r.text(w, req, http.StatusNotFound, "no such page")
	}
}

// serveTime serves the time of day for DASH's UTCTiming, scheme
// urn:mpeg:dash:utc:http-iso:2014.
func (r *Router) serveTime(w *response, req *http.Request) {
	h := w.Header()
	h["Cache-Control"] = r.values.noStore
	h["Content-Type"] = r.values.text
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	h["Content-Length"] = []string{strconv.Itoa(len(now))}
	w.WriteHeader(http.StatusOK)
	if req.Method != http.MethodHead {
		_, _ = w.Write([]byte(now))
	}
}

func (r *Router) serveAsset(w *response, req *http.Request, name string) {
	a, ok := r.assets[name]
	if !ok {
		r.text(w, req, http.StatusNotFound, "no such page")
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", a.etag)
	if notModified(req, a.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", a.contentType)
	h.Set("Content-Length", strconv.Itoa(len(a.data)))
	w.WriteHeader(http.StatusOK)
	if req.Method != http.MethodHead {
		_, _ = w.Write(a.data)
	}
}

// serveAdmin answers metrics and health; it reports whether path is one.
func (r *Router) serveAdmin(w http.ResponseWriter, req *http.Request, path string) bool {
	switch path {
	case "/metrics":
		promhttp.HandlerFor(r.deps.Registry, promhttp.HandlerOpts{}).ServeHTTP(w, req)
	case "/healthz":
		health(w, nil)
	case "/readyz":
		health(w, r.Ready(req.Context()))
	default:
		return false
	}
	return true
}

func (r *Router) adminHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !r.serveAdmin(w, req, req.URL.Path) {
			http.NotFound(w, req)
		}
	})
}

func health(w http.ResponseWriter, err error) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, err)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}
