package router

import (
	"context"
	"errors"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// values are header values that many responses share. Nothing changes them.
type values struct {
	immutable, manifest, noStore, bytes, any, exposed, nosniff, text []string
}

func newValues() values {
	return values{
		immutable: []string{"public, max-age=3600, immutable"},
		// A browser asks each time, a CDN at most once a second, and a CDN may
		// go on with what it has while routers are away.
		manifest: []string{"public, max-age=0, s-maxage=1, stale-if-error=30"},
		noStore:  []string{"no-store"},
		bytes:    []string{"bytes"},
		any:      []string{"*"},
		exposed:  []string{"Content-Length, Content-Range, Date, ETag, " + headerStale},
		nosniff:  []string{"nosniff"},
		text:     []string{"text/plain; charset=utf-8"},
	}
}

// response counts what is sent.
type response struct {
	http.ResponseWriter
	code int
	sent int64
	kind kind
}

func (w *response) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

func (w *response) flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// ServeHTTP answers viewers and CDNs.
func (r *Router) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	start := time.Now()
	w := r.responses.Get().(*response)
	*w = response{ResponseWriter: rw}
	defer func() {
		r.metrics.request(w, time.Since(start))
		w.ResponseWriter = nil
		r.responses.Put(w)
	}()
	h := rw.Header()
	h["Access-Control-Allow-Origin"] = r.values.any
	h["Access-Control-Expose-Headers"] = r.values.exposed
	h["X-Content-Type-Options"] = r.values.nosniff
	switch req.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		h.Set("Allow", allowed)
		h.Set("Access-Control-Allow-Methods", allowed)
		h.Set("Access-Control-Allow-Headers", "Range, If-None-Match, If-Range, Cache-Control")
		h.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return
	default:
		h.Set("Allow", allowed)
		r.text(w, req, http.StatusMethodNotAllowed, "method not allowed")
		return
	}
	path := req.URL.EscapedPath()
	if strings.HasPrefix(path, livePrefix) {
		r.serveLive(w, req, path)
		return
	}
	r.serveOther(w, req, path)
}

const allowed = "GET, HEAD, OPTIONS"

func (r *Router) serveLive(w *response, req *http.Request, path string) {
	if r.cfg.Mode == ModeProxy && r.hitSegment(w, req, path) {
		return
	}
	t, err := parsePath(path)
	switch {
	case errors.Is(err, errPathTooLong):
		r.text(w, req, http.StatusRequestURITooLong, err.Error())
		return
	case errors.Is(err, errPathUnknown):
		r.text(w, req, http.StatusNotFound, err.Error())
		return
	case err != nil:
		r.text(w, req, http.StatusBadRequest, err.Error())
		return
	}
	w.kind = t.kind
	st := r.stream(t.stream)
	st.used.Store(time.Now().UnixNano())
	switch {
	case r.cfg.Mode == ModeRedirect:
		r.redirect(w, req, st, t)
	case t.kind == kindSegment:
		r.serveMissed(w, req, st, t)
	default:
		r.serveManifest(w, req, st, t)
	}
}

// serveMissed answers a request for a segment that is not in memory yet.
func (r *Router) serveMissed(w *response, req *http.Request, st *streamState, t target) {
	if _, err := r.routeOf(req.Context(), st); err != nil {
		r.fail(w, req, t.kind, err)
		return
	}
	o, err := r.fetchSegment(st, t, nil)
	if err != nil {
		r.fail(w, req, t.kind, err)
		return
	}
	defer r.cache.release(o)
	// Its viewers may have their playlists from another router.
	r.keepWarm(st)
	r.serveSegment(w, req, o)
}

func (r *Router) serveManifest(w *response, req *http.Request, st *streamState, t target) {
	now := time.Now()
	m := st.manifest(t, now)
	if m == nil {
		r.fail(w, req, t.kind, statusError(http.StatusNotFound))
		return
	}
	body, stale, err := r.serveable(req.Context(), m)
	if err != nil {
		if isMissing(err) && !st.hasManifest() {
			// The broadcast's first manifest is still to come.
			err = errNotLive
		}
		r.fail(w, req, t.kind, err)
		return
	}
	r.keepWarm(st)
	h := w.Header()
	if stale {
		r.metrics.stale.Inc()
		h[headerStale] = []string{strconv.Itoa(int(now.Sub(body.at).Seconds()))}
	}
	h["Cache-Control"] = r.values.manifest
	h["Etag"] = body.header.etag
	if notModified(req, body.header.etag[0]) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h["Content-Type"] = body.header.contentType
	h["Content-Length"] = body.header.contentLength
	if req.Method == http.MethodHead {
		w.WriteHeader(http.StatusOK)
		return
	}
	_, _ = w.Write(body.body)
}

// hasManifest reports whether any manifest of the highest epoch was had: then a
// missing one is missing for good.
func (st *streamState) hasManifest() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, m := range st.manifests {
		if good := m.good.Load(); good != nil && good.epoch >= st.epoch.Load() {
			return true
		}
	}
	return false
}

// redirect sends the client to the origin itself.
func (r *Router) redirect(w *response, req *http.Request, st *streamState, t target) {
	route, err := r.routeOf(req.Context(), st)
	if err != nil {
		r.fail(w, req, t.kind, err)
		return
	}
	epoch := max(route.Epoch, st.epoch.Load())
	if t.kind == kindSegment {
		epoch = t.run.Epoch
	} else if !route.Live && !route.Ended {
		r.fail(w, req, t.kind, errNotLive)
		return
	}
	origin, ok := originOf(route, epoch)
	if !ok {
		err := errNoAsk
		if t.kind == kindSegment {
			err = errGone
		}
		r.fail(w, req, t.kind, err)
		return
	}
	addrs, err := r.deps.Resolver.Lookup(req.Context(), origin)
	if err != nil {
		r.fail(w, req, t.kind, err)
		return
	}
	h := w.Header()
	h["Cache-Control"] = r.values.noStore
	h["Location"] = []string{"http://" + addrs[0] + t.path}
	w.WriteHeader(http.StatusTemporaryRedirect)
}

// fail is the one place that turns an error into a status.
func (r *Router) fail(w *response, req *http.Request, k kind, err error) {
	h := w.Header()
	switch {
	// A 404 is remembered here for NegativeTTL and by nobody else: Cache-Control
	// knows nothing below a second.
	case errors.Is(err, stream.ErrNotFound):
		h["Cache-Control"] = r.values.noStore
		r.text(w, req, http.StatusNotFound, "no such stream")
	case isMissing(err):
		h["Cache-Control"] = r.values.noStore
		r.text(w, req, http.StatusNotFound, "no such "+k.noun())
	case errors.Is(err, context.Canceled) && req.Context().Err() != nil:
		w.code = 499 // the client left: nothing is sent, only counted
	default:
		h["Cache-Control"] = r.values.noStore
		h["Retry-After"] = []string{"1"}
		r.text(w, req, http.StatusServiceUnavailable, unavailable(err))
	}
}

// unavailable says why, without addresses or names of machines.
func unavailable(err error) string {
	switch {
	case errors.Is(err, errNotLive), errors.Is(err, errNoAsk), errors.Is(err, statusError(http.StatusServiceUnavailable)):
		return "stream is not live yet"
	case errors.Is(err, errNoMemory):
		return "too many segments in flight"
	default:
		return "stream is not available at the moment"
	}
}

func (k kind) noun() string {
	if k == kindSegment {
		return "segment"
	}
	return "manifest"
}

// text sends a short answer.
func (r *Router) text(w *response, req *http.Request, code int, text string) {
	h := w.Header()
	h["Content-Type"] = r.values.text
	h["Content-Length"] = []string{strconv.Itoa(len(text) + 1)}
	w.WriteHeader(code)
	if req.Method != http.MethodHead {
		_, _ = w.Write([]byte(text + "\n"))
	}
}

// bodyTag makes the entity tag of a manifest's bytes.
func bodyTag(body []byte) string {
	f := fnv.New64a()
	_, _ = f.Write(body)
	return `"` + strconv.FormatUint(f.Sum64(), 16) + `"`
}
