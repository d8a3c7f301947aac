package router

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// serveSegment answers with an object, filled or filling.
func (r *Router) serveSegment(w *response, req *http.Request, o *object) {
	if whole := o.whole.Load(); whole != nil {
		r.serveWhole(w, req, whole)
		return
	}
	head, err := o.waitHead(req.Context())
	if err != nil {
		r.fail(w, req, kindSegment, err)
		return
	}
	if head.size < 0 {
		// Without a length neither the head nor a range can be answered.
		if err := waitWhole(req.Context(), o); err != nil {
			r.fail(w, req, kindSegment, err)
			return
		}
		r.serveWhole(w, req, o.whole.Load())
		return
	}
	off, n, ok := r.segmentHead(w, req, head.header, head.size)
	if !ok {
		return
	}
	for n > 0 {
		data, _, err := o.waitData(req.Context(), off)
		if err != nil || len(data) == 0 {
			// The head has gone out: only a broken connection can tell.
			panic(http.ErrAbortHandler)
		}
		data = data[:min(int64(len(data)), n)]
		if _, err := w.Write(data); err != nil {
			return
		}
		w.flush()
		off += int64(len(data))
		n -= int64(len(data))
	}
}

// waitWhole waits until o is filled.
func waitWhole(ctx context.Context, o *object) error {
	for off := int64(0); ; {
		data, end, err := o.waitData(ctx, off)
		if err != nil {
			return err
		}
		if end {
			return nil
		}
		off += int64(len(data))
	}
}

func (r *Router) serveWhole(w *response, req *http.Request, whole *wholeObject) {
	off, n, ok := r.segmentHead(w, req, whole.header, int64(len(whole.data)))
	if !ok {
		return
	}
	// One write: the connection takes as much as it can at a time.
	_, _ = w.Write(whole.data[off : off+n])
}

// segmentHead sends the response's head and returns which bytes follow it; ok
// is false when none do.
func (r *Router) segmentHead(w *response, req *http.Request, sh segmentHeader, size int64) (off, n int64, ok bool) {
	h := w.Header()
	h["Cache-Control"] = r.values.immutable
	h["Etag"] = sh.etag
	h["Accept-Ranges"] = r.values.bytes
	if notModified(req, sh.etag[0]) {
		w.WriteHeader(http.StatusNotModified)
		return 0, 0, false
	}
	h["Content-Type"] = sh.contentType
	off, n, code := byteRange(req, sh.etag[0], size)
	switch code {
	case http.StatusOK:
		h["Content-Length"] = sh.contentLength
	case http.StatusPartialContent:
		h["Content-Length"] = []string{strconv.FormatInt(n, 10)}
		h["Content-Range"] = []string{"bytes " + strconv.FormatInt(off, 10) + "-" +
			strconv.FormatInt(off+n-1, 10) + "/" + strconv.FormatInt(size, 10)}
	default:
		h["Content-Range"] = []string{"bytes */" + strconv.FormatInt(size, 10)}
		delete(h, "Cache-Control")
		r.text(w, req, code, "range not satisfiable")
		return 0, 0, false
	}
	w.WriteHeader(code)
	return off, n, req.Method != http.MethodHead
}

// notModified reports whether the client has the bytes that tag names
// (RFC 9110, section 13.1.2).
func notModified(req *http.Request, tag string) bool {
	have := req.Header["If-None-Match"]
	if len(have) == 0 {
		return false
	}
	for part := range strings.SplitSeq(strings.Join(have, ","), ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == tag || part == "*" {
			return true
		}
	}
	return false
}

// byteRange reads a Range of one part (RFC 9110, section 14). Anything else,
// several parts and units other than bytes among it, gets the whole.
func byteRange(req *http.Request, tag string, size int64) (off, n int64, code int) {
	spec, ok := strings.CutPrefix(req.Header.Get("Range"), "bytes=")
	if cond := req.Header.Get("If-Range"); !ok || (cond != "" && cond != tag) {
		return 0, size, http.StatusOK
	}
	from, to, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return 0, size, http.StatusOK
	}
	if from == "" { // the last bytes
		last, err := strconv.ParseUint(to, 10, 63)
		if err != nil {
			return 0, size, http.StatusOK
		}
		if last == 0 || size == 0 {
			return 0, 0, http.StatusRequestedRangeNotSatisfiable
		}
		n = min(int64(last), size)
		return size - n, n, http.StatusPartialContent
	}
	first, err := strconv.ParseUint(from, 10, 63)
	if err != nil {
		return 0, size, http.StatusOK
	}
	end := uint64(size - 1)
	if to != "" {
		if end, err = strconv.ParseUint(to, 10, 63); err != nil || end < first {
			return 0, size, http.StatusOK
		}
	}
	if int64(first) >= size {
		return 0, 0, http.StatusRequestedRangeNotSatisfiable
	}
	return int64(first), min(int64(end), size-1) - int64(first) + 1, http.StatusPartialContent
}

// etagOf makes the entity tag of an immutable path.
func etagOf(path string) string {
	_, rest, _ := strings.Cut(path, "/"+segmentDir+"/")
	return `"` + rest + `"`
}

// hitSegment answers from memory without taking the path apart: only paths
// that were checked are in it.
func (r *Router) hitSegment(w *response, req *http.Request, path string) bool {
	o := r.cache.hit(path)
	if o == nil {
		return false
	}
	defer r.cache.release(o)
	now := time.Now()
	rs := o.st.route.Load()
	if rs == nil || !now.Before(rs.until) {
		r.askRoute(o.st, false) // not waited for: the bytes are right in any case
	}
	o.st.used.Store(now.UnixNano())
	r.metrics.cache.hit.Inc()
	w.kind = kindSegment
	r.serveWhole(w, req, o.whole.Load())
	return true
}
