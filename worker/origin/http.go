package origin

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// Headers between routers and origins. A router sends the highest epoch that it
// knows of the stream; an origin answers with its own, and with what the manifest
// ends with, as <epoch>.<run>.<number>, which never goes down. Every answer names
// the origin that gives it: an address may have been another one's.
const (
	HeaderEpoch   = "Dionysia-Epoch"
	HeaderVersion = "Dionysia-Version"
	HeaderOrigin  = "Dionysia-Origin"
)

const (
	typeHLS  = "application/vnd.apple.mpegurl"
	typeDASH = "application/dash+xml"
)

// Cache headers: a URL of a segment names the same bytes for ever; a manifest is
// asked for again each time, with its ETag.
const (
	cacheManifest = "no-cache"
	cacheSegment  = "public, max-age=86400, immutable"
	cacheError    = "no-store"
)

func mediaType(k stream.TrackKind) string { return string(k) + "/mp4" }

// ServeHTTP serves /live/{stream}/…: the manifests and the listed segments.
func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	cw := &countingWriter{ResponseWriter: w, code: http.StatusOK}
	kind := o.serve(cw, r)
	o.metrics.requests.WithLabelValues(kind, strconv.Itoa(cw.code)).Inc()
	o.metrics.sent.Add(float64(cw.n))
}

func (o *Origin) serve(w http.ResponseWriter, r *http.Request) (kind string) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Content-Length, Content-Range, Date, ETag")
	if o.cfg.ID != "" {
		h.Set(HeaderOrigin, o.cfg.ID)
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "Range, If-None-Match, If-Modified-Since, Cache-Control")
		h.Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
		return "options"
	default:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		fail(w, http.StatusMethodNotAllowed, "only GET, HEAD and OPTIONS")
		return "other"
	}
	id, rest, ok := splitPath(r)
	if !ok {
		fail(w, http.StatusBadRequest, "malformed path")
		return "other"
	}
	st := o.lookup(id)
	if st == nil {
		fail(w, http.StatusNotFound, "no such stream here")
		return kindOf(rest)
	}
	o.checkEpoch(st, r)
	if key, isFile := strings.CutPrefix(rest, "seg/"); isFile {
		return o.serveFile(w, r, st, key)
	}
	if rest == nextPath {
		o.serveNext(w, r, st)
		return kindOf(rest)
	}
	return o.serveManifest(w, r, st, rest)
}

// splitPath takes /live/<stream>/<rest> apart. Only plain characters are
// allowed, so that nothing is ever decoded, and what remains is only looked up.
func splitPath(r *http.Request) (id, rest string, ok bool) {
	path := r.URL.EscapedPath()
	for i := range len(path) {
		if !plain(path[i]) {
			return "", "", false
		}
	}
	if strings.Contains(path, "//") || strings.Contains(path, "..") || strings.Contains(path, "/./") {
		return "", "", false
	}
	path, found := strings.CutPrefix(path, "/live/")
	if !found {
		return "", "", true // no such stream: 404
	}
	id, rest, _ = strings.Cut(path, "/")
	return id, rest, true
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/._-", c) >= 0
}

// nextPath is where routers ask for what is offered next.
const nextPath = "next"

func kindOf(rest string) string {
	switch {
	case rest == nextPath:
		return "next"
	case rest == "master.m3u8":
		return "master"
	case rest == "manifest.mpd":
		return "mpd"
	case strings.HasSuffix(rest, "/index.m3u8"):
		return "media"
	case strings.HasPrefix(rest, "seg/") && strings.HasSuffix(rest, "/init.mp4"):
		return "init"
	case strings.HasPrefix(rest, "seg/"):
		return "segment"
	}
	return "other"
}

// checkEpoch fences the stream when a router knows a higher epoch.
func (o *Origin) checkEpoch(st *state, r *http.Request) {
	header := r.Header.Get(HeaderEpoch)
	if header == "" {
		return
	}
	text, _, _ := strings.Cut(header, ";")
	epoch, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	if err != nil || epoch <= st.view.Load().epoch || epoch <= st.fencedBy.Load() {
		return
	}
	if o.cfg.VerifyEpoch == nil || o.cfg.VerifyEpoch(st.id, epoch, header) {
		o.Fence(st.id, epoch)
	}
}

func (o *Origin) serveManifest(w http.ResponseWriter, r *http.Request, st *state, rest string) string {
	kind := kindOf(rest)
	v := st.view.Load()
	h := w.Header()
	if v.epoch > 0 {
		h.Set(HeaderEpoch, strconv.FormatUint(v.epoch, 10))
	}
	switch {
	case v.status == absent:
		fail(w, http.StatusNotFound, "no such stream here")
	case st.fencedBy.Load() > v.epoch:
		fail(w, http.StatusGone, "another worker has this stream now")
	case v.status == gone:
		fail(w, http.StatusGone, "the broadcast is over")
	case kind == "other":
		fail(w, http.StatusNotFound, "no such object")
	case len(v.manifests) == 0:
		h.Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "not live yet")
	default:
		b := v.manifests[rest]
		if b == nil {
			fail(w, http.StatusNotFound, "no such rendition")
			break
		}
		h.Set(HeaderVersion, v.version)
		h.Set("Content-Type", b.contentType)
		h.Set("Cache-Control", cacheManifest)
		h.Set("ETag", b.etag)
		// No range of a manifest makes sense: it changes.
		if etagMatches(r.Header.Get("If-None-Match"), b.etag) {
			w.WriteHeader(http.StatusNotModified)
			break
		}
		h.Set("Content-Length", strconv.Itoa(len(b.data)))
		if r.Method != http.MethodHead {
			_, _ = w.Write(b.data)
		}
	}
	return kind
}

func (o *Origin) serveFile(w http.ResponseWriter, r *http.Request, st *state, key string) string {
	kind := "segment"
	if strings.HasSuffix(key, "/init.mp4") {
		kind = "init"
	}
	f, ok := o.find(st, key)
	if !ok {
		code, why := http.StatusNotFound, "not listed"
		if st.view.Load().status == gone {
			code, why = http.StatusGone, "the broadcast is over"
		}
		fail(w, code, why)
		return kind
	}
	var content io.ReadSeeker = strings.NewReader(string(f.data))
	if f.path != "" {
		// The size was checked when it was listed; a file that differs is not
		// what the URL names.
		disk, size, err := openRegular(f.path)
		if err != nil || size != f.size {
			if err == nil {
				disk.Close()
			}
			st.log.Error("a listed segment is gone", "segment", key, "error", err)
			fail(w, http.StatusNotFound, "gone")
			return kind
		}
		defer disk.Close()
		content = disk
	}
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", cacheSegment)
	h.Set("ETag", f.etag)
	http.ServeContent(w, r, "", f.modified.Truncate(time.Second), content)
	return kind
}

// find returns the object at a path below seg/.
func (o *Origin) find(st *state, key string) (*file, bool) {
	if v, ok := st.files.Load(key); ok {
		return v.(*file), true
	}
	return o.findPast(st, key)
}

func etagMatches(header, etag string) bool {
	for _, part := range strings.Split(header, ",") {
		if p := strings.TrimPrefix(strings.TrimSpace(part), "W/"); p == etag || p == "*" {
			return true
		}
	}
	return false
}

func fail(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Cache-Control", cacheError)
	http.Error(w, why, code)
}

// countingWriter counts what is sent. It keeps sendfile (ReaderFrom).
type countingWriter struct {
	http.ResponseWriter
	code  int
	n     int64
	wrote bool
}

func (c *countingWriter) WriteHeader(code int) {
	if !c.wrote {
		c.code, c.wrote = code, true
	}
	c.ResponseWriter.WriteHeader(code)
}

func (c *countingWriter) Write(p []byte) (int, error) {
	c.wrote = true
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

func (c *countingWriter) ReadFrom(r io.Reader) (int64, error) {
	c.wrote = true
	n, err := io.Copy(c.ResponseWriter, r)
	c.n += n
	return n, err
}

func (c *countingWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
