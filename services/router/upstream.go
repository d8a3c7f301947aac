package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Headers between routers and origins.
const (
	// headerEpoch carries the highest epoch that a router knows of the stream:
	// an origin with a lower one fences itself.
	headerEpoch = "Dionysia-Epoch"
	// headerOrigin is the id of the origin that answers.
	headerOrigin = "Dionysia-Origin"
	// headerVersion is <epoch>.<run>.<last public number> on a manifest.
	headerVersion = "Dionysia-Version"
	// headerStale is the age in whole seconds of a last good manifest that is
	// served because no newer one could be had.
	headerStale = "Dionysia-Stale"
)

// Errors of asking an origin; statusError is any other.
var (
	errNotLive = errors.New("stream is not live")
	errNoAsk   = errors.New("no origin of the highest epoch is known")
	errGone    = errors.New("no such segment")
	errSlow    = errors.New("origin is slow to answer")
	// errElsewhere says that another origin has the address: what it lacks is no
	// answer of the one that was asked for.
	errElsewhere = errors.New("another origin answers at the address")
)

// statusError is an origin's answer that is neither 200 nor a failure to answer.
type statusError int

func (e statusError) Error() string { return "origin answered " + strconv.Itoa(int(e)) }

const (
	dialTimeout = time.Second
	// idleConns per origin: beyond so many concurrent fills connections are
	// opened and closed.
	idleConns = 64
	maxConns  = 512
	// drainTime bounds the wait for the rest of an answer that is not wanted.
	drainTime = 100 * time.Millisecond
	// followConns bounds an origin's idle connections of streams that are followed.
	followConns = 16384
)

func newTransport(cfg Config) *http.Transport {
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		ResponseHeaderTimeout: cfg.OriginTimeout,
		MaxIdleConnsPerHost:   idleConns,
		MaxConnsPerHost:       maxConns,
		IdleConnTimeout:       60 * time.Second,
		DisableCompression:    true,
		ReadBufferSize:        64 << 10,
	}
}

// newFollowing is for connections that wait most of their time, one for each stream
// that is followed: all of them are kept while their streams' offers are fetched, and
// what they carry is small.
func newFollowing(cfg Config) *http.Transport {
	t := newTransport(cfg)
	t.MaxConnsPerHost, t.MaxIdleConnsPerHost, t.ReadBufferSize = 0, followConns, 0
	return t
}

// ask sends a GET for path to the origin, at each of its addresses until one
// answers; when none does, DNS is asked again, once, for it may have moved. The
// caller closes the body. Redirects are answers, never followed.
func (r *Router) ask(ctx context.Context, st *streamState, origin, path string) (*http.Response, error) {
	return r.askBy(ctx, r.transport, st, origin, path)
}

// askBy is ask by another transport; path may have a query.
func (r *Router) askBy(ctx context.Context, by *http.Transport, st *streamState, origin, path string) (*http.Response, error) {
	tried, err := r.deps.Resolver.Lookup(ctx, origin)
	if err != nil {
		return nil, fmt.Errorf("resolving origin %s: %w", origin, err)
	}
	resp, err := r.askEach(ctx, by, st, tried, origin, path)
	if err == nil || ctx.Err() != nil {
		return resp, err
	}
	moved, lookupErr := r.deps.Resolver.Lookup(ctx, origin)
	if lookupErr != nil || slices.Equal(moved, tried) {
		return nil, err
	}
	return r.askEach(ctx, by, st, moved, origin, path)
}

func (r *Router) askEach(ctx context.Context, by *http.Transport, st *streamState, addrs []string, origin, path string) (*http.Response, error) {
	err := fmt.Errorf("origin %s has no address", origin)
	for _, addr := range addrs {
		var req *http.Request
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			return nil, fmt.Errorf("asking origin %s: %w", origin, err)
		}
		req.Header[headerEpoch] = []string{r.deps.SignEpoch(st.id, st.epoch.Load())}
		req.Header["User-Agent"] = []string{"dionysia-router"}
		var resp *http.Response
		resp, err = by.RoundTrip(req)
		if err == nil {
			if err = elsewhere(resp, origin); err == nil {
				return resp, nil
			}
			drain(resp)
		}
		err = fmt.Errorf("asking origin %s at %s: %w", origin, addr, err)
		if ctx.Err() != nil {
			break
		}
		r.deps.Resolver.Failed(origin)
	}
	return nil, err
}

// elsewhere returns errElsewhere when another origin than the one that was asked
// answers that it has not got what it was asked for. What it has got is right
// whoever gives it: a segment's URL names its bytes, and manifests and offers carry
// their epoch. An origin that does not say who it is, is taken for the right one.
func elsewhere(resp *http.Response, origin string) error {
	by := resp.Header.Get(headerOrigin)
	if by == "" || by == origin || resp.StatusCode < http.StatusMultipleChoices {
		return nil
	}
	return fmt.Errorf("%w: %s says %d", errElsewhere, by, resp.StatusCode)
}

// drain reads a little of an unwanted body, if it is there, so that the connection
// can be used again.
func drain(resp *http.Response) {
	late := time.AfterFunc(drainTime, func() { _ = resp.Body.Close() })
	defer late.Stop()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
	_ = resp.Body.Close()
}

// epochOf reads the epoch that an origin says is higher than its own.
func epochOf(h http.Header) uint64 {
	n, err := strconv.ParseUint(h.Get(headerEpoch), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
