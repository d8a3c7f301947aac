// Package router sends viewers and CDNs to the worker that holds a stream. It
// turns the stream of a URL into an origin's id (the store's route), that into
// an address (Consul's DNS), and serves what the origin has:
//
//	            ┌─ segment in memory ──────────────────────────────────▶ 200
//	request ────┤
//	            ├─ segment: route → origin of its epoch → DNS → fill ───▶ 200 while it fills
//	            └─ manifest: under 0.5 s old, or from the origin of the
//	               highest epoch, or the last good one ─────────────────▶ 200
//
// Streams that are live stay playable with the store, DNS or the origin away:
// routes and addresses are kept, manifests served stale, and the live window of
// every watched stream is in memory.
package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	headerTimeout = 5 * time.Second
	// responseTimeout bounds a whole response: a client that takes a segment of
	// some seconds more slowly than this can't play it.
	responseTimeout = 60 * time.Second
	idleTimeout     = 75 * time.Second
	maxHeaderBytes  = 16 << 10
)

// Router is the router role.
type Router struct {
	cfg       Config
	deps      Deps
	log       hclog.Logger
	metrics   *metrics
	values    values
	transport *http.Transport
	following *http.Transport // a connection for each stream that is followed
	name      string          // by which origins know this router
	assets    assets

	cache                              *cache
	streams                            sync.Map // id → *streamState
	responses                          sync.Pool
	holdLane, followLane, prefetchLane *lane

	watched   atomic.Int64
	storeAway atomic.Bool
	draining  atomic.Bool

	ctx    context.Context // ends when the router has stopped
	cancel context.CancelFunc
	goes   sync.WaitGroup // every goroutine of the router

	servers []*http.Server
	fresh   freshConns
	addr    net.Addr
	admin   net.Addr
}

// New returns a router that is not listening yet. Handler works from now on,
// Start is needed for the background work.
func New(cfg Config, deps Deps) (*Router, error) {
	cfg = cfg.withDefaults()
	if cfg.Mode != ModeProxy && cfg.Mode != ModeRedirect {
		return nil, fmt.Errorf("router mode %q: must be %s or %s", cfg.Mode, ModeProxy, ModeRedirect)
	}
	if deps.Store == nil || deps.Resolver == nil {
		return nil, errors.New("router needs a store and a resolver")
	}
	if deps.SignEpoch == nil {
		deps.SignEpoch = func(_ string, epoch uint64) string { return strconv.FormatUint(epoch, 10) }
	}
	if deps.Logger == nil {
		deps.Logger = hclog.NewNullLogger()
	}
	if deps.Registry == nil {
		deps.Registry = prometheus.NewRegistry()
	}
	r := &Router{
		cfg: cfg, deps: deps, log: deps.Logger.Named("router"),
		values: newValues(), transport: newTransport(cfg), following: newFollowing(cfg), name: uuid.NewString(),
		cache:        newCache(cfg.CacheBytes),
		holdLane:     newLane("hold", holdFetches, holdFetchesEach),
		followLane:   newLane("follow", followFetches, followFetchesEach),
		prefetchLane: newLane("prefetch", prefetchFetches, prefetchFetchesEach),
	}
	r.responses.New = func() any { return new(response) }
	r.ctx, r.cancel = context.WithCancel(context.Background())
	var err error
	if r.assets, err = loadAssets(cfg.WebDir); err != nil {
		return nil, fmt.Errorf("loading the watch page: %w", err)
	}
	r.metrics = newMetrics(r)
	return r, nil
}

// Start listens and serves. It returns once the listeners are bound.
func (r *Router) Start(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", r.cfg.Listen)
	if err != nil {
		return fmt.Errorf("router: listening at %s: %w", r.cfg.Listen, err)
	}
	r.addr = l.Addr()
	if r.cfg.AdminListen != "" {
		al, err := lc.Listen(ctx, "tcp", r.cfg.AdminListen)
		if err != nil {
			_ = l.Close()
			return fmt.Errorf("router: listening at %s: %w", r.cfg.AdminListen, err)
		}
		r.admin = al.Addr()
		r.serve(al, r.adminHandler())
	}
	r.serve(l, r)
	r.goes.Go(r.watchRoutes)
	r.goes.Go(r.sweepLoop)
	r.log.Info("router serves", "address", r.addr, "mode", r.cfg.Mode, "cache_bytes", r.cfg.CacheBytes)
	return nil
}

func (r *Router) serve(l net.Listener, h http.Handler) {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      responseTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnState:         r.fresh.track,
		ErrorLog:          r.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	r.servers = append(r.servers, s)
	r.goes.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			r.log.Error("serving ended", "address", l.Addr(), "error", err)
		}
	})
}

// Stop drains: /readyz says 503, no new connection is taken, requests in flight
// are served until ctx ends, then everything is closed.
func (r *Router) Stop(ctx context.Context) error {
	r.draining.Store(true)
	defer time.AfterFunc(freshGrace, r.fresh.closeAll).Stop()
	var errs []error
	for _, s := range r.servers {
		if err := s.Shutdown(ctx); err != nil {
			errs = append(errs, fmt.Errorf("draining router: %w", err), s.Close())
		}
	}
	r.cancel()
	r.transport.CloseIdleConnections()
	r.following.CloseIdleConnections()
	r.goes.Wait()
	return errors.Join(errs...)
}

// Addr returns where the router listens, once started.
func (r *Router) Addr() net.Addr { return r.addr }

// AdminAddr returns where metrics and health are served, once started.
func (r *Router) AdminAddr() net.Addr {
	if r.admin == nil {
		return r.addr
	}
	return r.admin
}

// Handler returns the router's HTTP handler.
func (r *Router) Handler() http.Handler { return r }

// Ready says why the router can't serve, or nil. A router whose store is away
// serves on with the routes that it knows; one that never knew any can't.
func (r *Router) Ready(ctx context.Context) error {
	if r.draining.Load() {
		return errors.New("draining")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	err := r.deps.Store.Ping(ctx)
	if err == nil || r.knowsRoute() {
		return nil
	}
	return fmt.Errorf("store does not answer and no route is known: %w", err)
}

func (r *Router) knowsRoute() bool {
	found := false
	r.streams.Range(func(_, st any) bool {
		rs := st.(*streamState).route.Load()
		found = rs != nil && rs.found
		return !found
	})
	return found
}

// pause waits for d and reports whether the router still runs.
func (r *Router) pause(d time.Duration) bool { return r.pauseFor(nil, d) }
