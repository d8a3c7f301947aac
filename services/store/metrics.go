package store

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

type metrics struct {
	seconds *prometheus.HistogramVec
	errors  *prometheus.CounterVec
	up      *prometheus.GaugeVec
	// unreadable counts entries of ledgers and their feed.
	unreadable prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dionysia_store_request_seconds",
			Help: "Time of a request to Redis, by role.", Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12)}, []string{"role"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dionysia_store_errors_total",
			Help: "Requests that Redis did not answer, by role."}, []string{"role"}),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "dionysia_store_up",
			Help: "1 when Redis answered the last request, by role."}, []string{"role"}),
	}
	m.unreadable = prometheus.NewCounter(prometheus.CounterOpts{Name: "dionysia_store_unreadable_total",
		Help: "Readings of a worker's ledgers, or of a change to one, that held an entry that can't be read."})
	if reg == nil {
		return m, nil
	}
	var err error
	if m.seconds, err = register(reg, m.seconds); err != nil {
		return nil, err
	}
	if m.errors, err = register(reg, m.errors); err != nil {
		return nil, err
	}
	if m.up, err = register(reg, m.up); err != nil {
		return nil, err
	}
	m.unreadable, err = register(reg, m.unreadable)
	return m, err
}

// register returns the collector that an earlier Store registered, if one did.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) (C, error) {
	err := reg.Register(c)
	var dup prometheus.AlreadyRegisteredError
	if errors.As(err, &dup) {
		if old, ok := dup.ExistingCollector.(C); ok {
			return old, nil
		}
	}
	return c, err
}

// hook measures requests, and logs when Redis goes away and when it is back.
type hook struct {
	role string
	log  hclog.Logger
	m    *metrics
	away atomic.Bool
}

func (h *hook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h *hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmd)
		h.done(ctx, start, err)
		return err
	}
}

func (h *hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		start := time.Now()
		err := next(ctx, cmds)
		h.done(ctx, start, err)
		return err
	}
}

func (h *hook) done(ctx context.Context, start time.Time, err error) {
	h.m.seconds.WithLabelValues(h.role).Observe(time.Since(start).Seconds())
	var answer redis.Error // an error, or nil, that Redis itself answered
	if err == nil || errors.As(err, &answer) {
		h.m.up.WithLabelValues(h.role).Set(1)
		if h.away.CompareAndSwap(true, false) {
			h.log.Info("redis is back", "role", h.role)
		}
		return
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return // the caller gave up
	}
	h.m.errors.WithLabelValues(h.role).Inc()
	h.m.up.WithLabelValues(h.role).Set(0)
	if h.away.CompareAndSwap(false, true) {
		h.log.Warn("redis does not answer", "role", h.role, "error", err)
	}
}
