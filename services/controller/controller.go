// Package controller is the leader's loop. Every turn it observes what the
// ingest agents and the workers report, decides what should be so, commits
// that to Redis and enqueues the task that starts it:
//
//	observe ──▶ sessions and broadcasts ──▶ decide ──▶ commit ──▶ enqueue
//	   ▲                                                            │
//	   └────────── reports, 2 to 10 times a second ◀── worker ◀─────┘
//
// It is level-triggered: a lost report, task or notification delays a stream
// and never loses it. Any api replica runs one; the holder of the lease in
// Redis leads.
package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Store is what the controller needs of Redis.
type Store interface {
	IngestReports(ctx context.Context) ([]store.IngestReport, error)
	Reports(ctx context.Context) ([]store.ReportSeen, error)
	ActiveStreams(ctx context.Context) ([]string, error)
	GetStream(ctx context.Context, id string) (stream.Stream, error)
	GetProfile(ctx context.Context, name string) (stream.Profile, error)
	Broadcast(ctx context.Context, id string) (stream.Broadcast, error)
	PutBroadcast(ctx context.Context, b stream.Broadcast) error
	Placement(ctx context.Context, id string) (stream.Placement, error)
	Ledger(ctx context.Context, worker string) (map[string]map[string]store.Held, error)
	Commit(ctx context.Context, p store.Proposal) (uint64, error)
	UpdateSource(ctx context.Context, id string, epoch uint64, src stream.Source) error
	SetEnding(ctx context.Context, id string, epoch uint64) error
	Release(ctx context.Context, id string, epoch uint64) error
	EndTail(ctx context.Context, id string, epoch uint64) error
	AddEvent(ctx context.Context, e stream.Event) error
	Notify(ctx context.Context, id string) error
	Watch(ctx context.Context) <-chan string
	AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (uint64, bool, error)
	RenewLease(ctx context.Context, name, holder string, ttl time.Duration) (bool, error)
	ReleaseLease(ctx context.Context, name, holder string) error
}

// Enqueuer puts tasks on workers' queues.
type Enqueuer interface {
	EnqueueContext(ctx context.Context, t *asynq.Task, opts ...asynq.Option) (*asynq.TaskInfo, error)
}

// Prober asks an origin directly whether it lives, for a worker whose
// heartbeat is missing. It returns nil when it answers.
type Prober func(ctx context.Context, r capacity.Report) error

// Config holds the controller's timing.
type Config struct {
	// Holder names this replica in the lease.
	Holder string
	// Interval is the loop's period; default 500 ms.
	Interval time.Duration
	// LeaseTTL is how long a dead leader keeps the lease; default 3 s.
	LeaseTTL time.Duration
	// Suspect is the age of a heartbeat from which a worker is probed directly;
	// default 2.5 s (workers send two a second).
	Suspect time.Duration
	// Hold is how long a new leader, or one whose Redis was away, waits for
	// reports before it believes that a publisher or a worker is gone; default 4 s.
	Hold time.Duration
}

func (c *Config) defaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Interval, 500*time.Millisecond)
	def(&c.LeaseTTL, 3*time.Second)
	def(&c.Suspect, 2500*time.Millisecond)
	def(&c.Hold, 4*time.Second)
}

// Controller is the leader's loop; see the package comment.
type Controller struct {
	cfg   Config
	store Store
	tasks Enqueuer
	probe Prober
	log   hclog.Logger
	now   func() time.Time
	m     metrics

	cancel context.CancelFunc
	done   sync.WaitGroup

	// The leader's memory. Only the loop touches it; a new leader starts empty
	// and holds until the reports have refilled it.
	holdUntil time.Time
	failing   bool
	nodes     map[string]nodeSeen
	workers   map[string]*workerSeen
	streams   map[string]*streamSeen
}

const lease = "controller"

// New returns a controller that has not started.
func New(cfg Config, s Store, tasks Enqueuer, probe Prober, log hclog.Logger, reg prometheus.Registerer) (*Controller, error) {
	cfg.defaults()
	if cfg.Holder == "" {
		return nil, errors.New("controller: the holder's name is empty")
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("controller metrics: %w", err)
	}
	return &Controller{cfg: cfg, store: s, tasks: tasks, probe: probe, log: log.Named("controller"), now: time.Now, m: m}, nil
}

// Start runs the loop until Stop.
func (c *Controller) Start(ctx context.Context) error {
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		c.campaign(ctx)
	}()
	return nil
}

// Stop ends the loop and gives the lease back.
func (c *Controller) Stop(ctx context.Context) {
	if c.cancel == nil {
		return
	}
	c.cancel()
	c.done.Wait()
	if err := c.store.ReleaseLease(ctx, lease, c.cfg.Holder); err != nil {
		c.log.Debug("giving the lease back", "error", err)
	}
}

// campaign takes the lease, leads until it is lost, and starts again.
func (c *Controller) campaign(ctx context.Context) {
	t := time.NewTicker(c.cfg.LeaseTTL / 3)
	defer t.Stop()
	for {
		token, ok, err := c.store.AcquireLease(ctx, lease, c.cfg.Holder, c.cfg.LeaseTTL)
		switch {
		case err != nil:
			c.log.Debug("asking for the lease", "error", err)
		case ok:
			c.log.Info("leading", "token", token)
			c.m.leader.Set(1)
			c.lead(ctx)
			c.m.leader.Set(0)
			c.log.Info("no longer leading")
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (c *Controller) lead(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.nodes, c.workers, c.streams = map[string]nodeSeen{}, map[string]*workerSeen{}, map[string]*streamSeen{}
	c.holdUntil = c.now().Add(c.cfg.Hold)

	changed := c.store.Watch(ctx)
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	renewed := c.now()
	for {
		ok, err := c.store.RenewLease(ctx, lease, c.cfg.Holder, c.cfg.LeaseTTL)
		switch {
		case err == nil && !ok:
			return
		case err == nil:
			renewed = c.now()
		case c.now().Sub(renewed) > c.cfg.LeaseTTL:
			return // somebody else may lead by now
		}
		if err == nil {
			c.turn(ctx)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case _, ok := <-changed:
			if !ok {
				changed = nil
			}
			drain(changed)
		}
	}
}

// drain empties a burst of notifications: one turn serves them all.
func drain(ch <-chan string) {
	for {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

// turn is one pass of the loop.
func (c *Controller) turn(ctx context.Context) {
	start := c.now()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	snap, err := c.observe(ctx)
	if err != nil {
		c.failing = true
		c.m.errors.Inc()
		c.log.Warn("observing failed; nothing is decided until it works again", "error", err)
		return
	}
	if c.failing {
		// Reports expired while Redis was away: believe nobody gone yet.
		c.failing = false
		c.holdUntil = c.now().Add(c.cfg.Hold)
	}
	for _, id := range snap.streams() {
		if err := c.reconcile(ctx, snap, id); err != nil {
			c.m.errors.Inc()
			c.log.Warn("reconciling a stream failed; trying again", "stream", id, "error", err)
		}
	}
	c.m.turn.Observe(c.now().Sub(start).Seconds())
}
