// Package api is the management API: the /v1 routes for operators, the
// /internal/v1 routes for Dionysia's own roles, metrics and health. Its
// contract is openapi.yaml; package wire is generated from it.
package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dionysia-dev/dionysia/services/placement"
)

// Config is what an operator sets.
type Config struct {
	Listen string // host:port; port 0 takes a free one, see Server.Addr
	// AdminToken guards /v1 and InternalToken guards /internal/v1. While one is
	// empty its routes refuse everyone, and Start refuses to start.
	AdminToken    string
	InternalToken string
	// Policy is the controller's, which explain and simulate decide by.
	Policy placement.Policy
}

// Deps are the parts that the server uses.
type Deps struct {
	Store  Store
	Logger hclog.Logger
	// Nodes is nil without Nomad.
	Nodes Nodes
	// Registry is served at /metrics; nil makes one for this server alone.
	Registry *prometheus.Registry
}

// Nodes knows the Nomad nodes that workers run on, by the id that they report.
type Nodes interface {
	// Draining says why the node takes nothing new, "" when it does or is not known.
	Draining(node string) string
}

// Server is the api role, without the controller.
type Server struct {
	config  Config
	logger  hclog.Logger
	handler http.Handler

	mu       sync.Mutex
	server   *http.Server
	listener net.Listener
	served   chan struct{}
}

// New builds a server that is not listening yet.
func New(config Config, deps Deps) *Server {
	if deps.Logger == nil {
		deps.Logger = hclog.NewNullLogger()
	}
	if deps.Registry == nil {
		deps.Registry = prometheus.NewRegistry()
	}
	logger := deps.Logger.Named("api")
	h := &handlers{store: deps.Store, nodes: deps.Nodes, policy: config.Policy, logger: logger, now: func() time.Time { return time.Now().UTC() }}
	if deps.Store != nil {
		h.ledgers = deps.Store.NewLedgers()
	}
	duration := register(deps.Registry, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "http_request_duration_seconds",
		Help:    "How long requests took to answer, by route template, method and status code.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14), // 0.5 ms to 4 s
	}, []string{"route", "method", "code"}))
	h.publishes = register(deps.Registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dionysia_publish_requests_total",
		Help: "Publishers that ingest agents asked about, by outcome: granted, a reason of refusal, or error.",
	}, []string{"outcome"}))
	register(deps.Registry, collectors.NewGoCollector())
	register(deps.Registry, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := promhttp.HandlerFor(deps.Registry, promhttp.HandlerOpts{})

	var handler http.Handler = newRouter(h, metrics)
	handler = limitBody(handler)
	handler = authorize(config.AdminToken, config.InternalToken, handler)
	handler = h.rescue(handler)
	handler = instrument(duration, handler)
	return &Server{config: config, logger: logger, handler: handler}
}

// register registers c, or returns the equal collector that is there already:
// roles that share a process may share a registry.
func register[C prometheus.Collector](r *prometheus.Registry, c C) C {
	err := r.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if existing, ok := already.ExistingCollector.(C); ok {
			return existing
		}
	}
	return c
}

// Handler serves everything that the server serves.
func (s *Server) Handler() http.Handler { return s.handler }

// Start binds the listener, so that errors come back, and then serves in the
// background until Stop.
func (s *Server) Start(ctx context.Context) error {
	if s.config.AdminToken == "" || s.config.InternalToken == "" {
		return errors.New("starting the api: it needs an admin token and an internal token")
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.config.Listen)
	if err != nil {
		return fmt.Errorf("starting the api: %w", err)
	}
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          s.logger.StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true}),
	}
	served := make(chan struct{})
	s.mu.Lock()
	s.server, s.listener, s.served = server, listener, served
	s.mu.Unlock()
	go func() {
		defer close(served)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.logger.Error("serving", "error", err)
		}
	}()
	s.logger.Info("listening", "address", listener.Addr().String())
	return nil
}

// Addr is the address that the server listens on, "" before Start.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Stop stops listening and waits for the requests under way, until ctx ends.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	server, served := s.server, s.served
	s.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, server.Close())
	}
	<-served
	if err != nil {
		return fmt.Errorf("stopping the api: %w", err)
	}
	return nil
}
