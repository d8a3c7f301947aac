package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// fillChunk is how much of a filling segment readers get at once.
	fillChunk = 128 << 10
	// fillTimeout bounds one fill, stallTimeout the wait for its next bytes.
	fillTimeout  = 60 * time.Second
	stallTimeout = 10 * time.Second
	// unreadTimeout bounds a fill that nobody waits for any more: a segment that
	// takes several times its duration is of no use later either.
	unreadTimeout = 10 * time.Second
)

// errTooLarge says that a segment is larger than Config.MaxObjectBytes.
var errTooLarge = errors.New("over the limit")

// fetchSegment returns the segment of t for reading, filled or filling; the
// caller releases it. All that ask while it fills share one upstream request,
// which goes on for a while when they leave; it has p, or gives that back at once
// when it was not needed.
func (r *Router) fetchSegment(st *streamState, t target, p *place) (*object, error) {
	o, started, err := r.cache.open(t.path, st, time.Now())
	if err != nil {
		p.leave(false)
		r.metrics.cache.missing.Inc()
		return nil, err
	}
	if !started {
		p.leave(false)
		r.metrics.cache.shared.Inc()
		return o, nil
	}
	r.metrics.cache.filled.Inc()
	r.goes.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, fillTimeout)
		defer cancel()
		r.cache.begins(o, p, time.Now(), cancel)
		err := r.fill(ctx, o, st, t, p)
		p.leave(answered(err))
		r.metrics.upstream(kindSegment, err)
		if err == nil {
			o.finish(nil)
			r.cache.filled(o)
			return
		}
		var until time.Time
		if isMissing(err) {
			until = time.Now().Add(r.cfg.NegativeTTL)
		}
		r.cache.failed(o, err, until)
		o.finish(err)
		if until.IsZero() {
			r.log.Debug("segment not fetched", "path", t.path, "error", err)
		}
	})
	return o, nil
}

// fetchAhead is fetchSegment for a reason that waits in a lane, if it has to, until
// ctx ends; the error is errBusy or errSilent then.
func (r *Router) fetchAhead(ctx context.Context, l *lane, st *streamState, t target) (*object, error) {
	if o := r.cache.join(t.path); o != nil {
		return o, nil
	}
	var origin string
	if rs := st.route.Load(); rs != nil {
		origin, _ = originOf(rs.route, t.run.Epoch)
	}
	p, err := l.enter(ctx, origin)
	if err != nil {
		reason := "busy"
		if errors.Is(err, errSilent) {
			reason = "silent"
		}
		r.metrics.putOff.WithLabelValues(l.name, reason).Inc()
		return nil, err
	}
	r.cache.appeared(t.path) // a 404 of before it was listed says nothing
	return r.fetchSegment(st, t, p)
}

// fill fetches o from the origin of its epoch. A route that does not know that
// epoch yet, or an origin that says 410, is looked up anew, once.
func (r *Router) fill(ctx context.Context, o *object, st *streamState, t target, p *place) error {
	route, err := r.routeOf(ctx, st)
	for try := 0; ; try++ {
		if err != nil {
			return err
		}
		origin, ok := originOf(route, t.run.Epoch)
		switch {
		case ok:
			err = r.fillFrom(ctx, o, st, origin, p)
			if !errors.Is(err, statusError(http.StatusGone)) {
				return err
			}
			if try > 0 {
				return errGone // the broadcast is over, and its window too
			}
		case try > 0 || t.run.Epoch < route.Epoch:
			return errGone
		}
		route, err = r.refreshRoute(ctx, st)
	}
}

func (r *Router) fillFrom(ctx context.Context, o *object, st *streamState, origin string, p *place) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := r.ask(ctx, st, origin, o.path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		drain(resp)
		return fmt.Errorf("segment %s: %w", o.path, statusError(resp.StatusCode))
	}
	size := resp.ContentLength
	if size > r.cfg.MaxObjectBytes {
		return fmt.Errorf("segment %s of %d bytes: %w of %d", o.path, size, errTooLarge, r.cfg.MaxObjectBytes)
	}
	if size >= 0 {
		if err := r.cache.reserve(o, size); err != nil {
			return fmt.Errorf("segment %s of %d bytes: %w", o.path, size, err)
		}
	}
	ctype := resp.Header.Get("Content-Type")
	if ctype == "" {
		ctype = "video/mp4"
	}
	o.begin(size, ctype)
	p.hears()
	stalled := time.AfterFunc(stallTimeout, cancel)
	defer stalled.Stop()
	return r.copyBody(o, resp.Body, size, stalled)
}

// copyBody reads the body into o until it has ended.
func (r *Router) copyBody(o *object, body io.Reader, size int64, stalled *time.Timer) error {
	var total int64
	for size < 0 || total < size {
		if size < 0 {
			// Of unknown length: room is made as it comes. Growing by doubling
			// needs up to three times the bytes for a moment.
			if total+fillChunk > r.cfg.MaxObjectBytes {
				return fmt.Errorf("segment %s: %w of %d bytes", o.path, errTooLarge, r.cfg.MaxObjectBytes)
			}
			if need := total + fillChunk - o.reserved; need > 0 {
				if err := r.cache.reserve(o, need); err != nil {
					return fmt.Errorf("segment %s: %w", o.path, err)
				}
			}
		}
		n, err := body.Read(o.space(fillChunk))
		if n > 0 {
			total += int64(n)
			o.advance(n)
			stalled.Reset(stallTimeout)
		}
		switch {
		case err == nil, total == size:
		case size < 0 && errors.Is(err, io.EOF):
			return nil
		default:
			return fmt.Errorf("reading segment %s after %d of %d bytes: %w", o.path, total, size, err)
		}
	}
	return nil
}
