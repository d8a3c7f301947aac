// Package controller is the leader's loop. Every turn it observes what the
// ingest agents and the workers report, decides what should be so, commits
// that to Redis and enqueues the task that starts it:
//
//	reports, ledgers' feed ──▶ view of the fleet ─────────┐
//	   ▲                                                  ▼
//	   │   each stream ──▶ placed, as it should be     queue: decide ──▶ commit ──▶ enqueue
//	   │      │            (evacuate, restore, rebalance) ▲   │ no room    (again once when
//	   │      └──────────▶ lost its worker, new, waiting ─┘   ▼             it was outrun)
//	   │                                            preempt, or wait and say why
//	   └────────── 2 to 10 times a second ◀── workers ◀── start task
//
// The view is the last report of every worker and what is reserved there. It is
// brought up to date once a turn, and by each commit of the turn.
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
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Store is what the controller needs of Redis.
type Store interface {
	IngestReports(ctx context.Context) ([]store.IngestReport, error)
	Reports(ctx context.Context) ([]store.ReportSeen, error)
	ActiveStreams(ctx context.Context) ([]string, error)
	States(ctx context.Context, ids []string, broadcast func(id string) bool) (list []store.State, generation string, err error)
	GetProfile(ctx context.Context, name string) (stream.Profile, error)
	PutBroadcast(ctx context.Context, b stream.Broadcast) error
	Placement(ctx context.Context, id string) (stream.Placement, error)
	Status(ctx context.Context, id string) (stream.RunStatus, error)
	Statuses(ctx context.Context, ids []string) (map[string]stream.RunStatus, error)
	NewLedgers() *store.Ledgers
	RepairLedger(ctx context.Context, worker string) (changed []string, err error)
	RaiseEpoch(ctx context.Context, id string, atLeast uint64) error
	Generation(ctx context.Context) (string, error)
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

// Nodes knows the Nomad nodes that workers run on, by the id that they report.
type Nodes interface {
	// Draining says why the node takes nothing new, "" when it does or is not known.
	Draining(node string) string
	// Down is a hint that the node is dead or cut off.
	Down(node string) bool
}

// Config says how the controller places streams, and its timing.
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
	// Nodes is nil without Nomad. A worker on a node that is down is probed when two
	// fifths of Suspect have passed.
	Nodes Nodes
	// Beside are run while this replica leads, each until its context is over.
	Beside []func(ctx context.Context)
	// Hold is how long a new leader, or one whose Redis was away, waits for
	// reports before it believes that a publisher or a worker is gone; default 4 s.
	Hold time.Duration

	// Policy is how streams are placed; the zero value spreads them and keeps
	// nothing back. Its reserve counts only while there are two workers or more
	// (placement.Policy.For).
	Policy placement.Policy
	// QueueLimit is how many streams may wait for capacity; default
	// placement.DefaultQueueLimit.
	QueueLimit int
	// Patience is how long the first of the queue waits before those behind it
	// leave a device to it; default placement.DefaultPatience.
	Patience time.Duration
	// Preempt lets a stream of higher priority end the placements of lower ones.
	Preempt bool
	// Rebalance is how many placements a minute may move to a better device; 0
	// moves none. Policy.Rebalance says what is better.
	Rebalance int
	// DrainMoves is how many streams are on their way from workers that operators
	// drain at a time; default 2. Those of a worker that stops leave at once.
	DrainMoves int
	// RestoreAfter is how long there must have been room for a degraded stream's
	// whole profile before it gets it; default 30 s. RestoreEvery is how long it
	// stays at least as it was placed; default 1 min.
	RestoreAfter, RestoreEvery time.Duration
	// RepairEvery is how often each worker's ledgers are compared with its
	// placements; default 30 s.
	RepairEvery time.Duration
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
	def(&c.Patience, placement.DefaultPatience)
	def(&c.RestoreAfter, 30*time.Second)
	def(&c.RestoreEvery, time.Minute)
	def(&c.RepairEvery, 30*time.Second)
	if c.DrainMoves <= 0 {
		c.DrainMoves = DefaultDrainMoves
	}
	if c.QueueLimit <= 0 {
		c.QueueLimit = placement.DefaultQueueLimit
	}
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

	// What a replica remembers whether it leads or not. Only the loop touches it.
	state databaseSeen

	// The leader's memory. Only the loop touches it; a new leader starts empty, or
	// with what remembered gives it, and holds until the reports have refilled it.
	renewed   time.Time // the lease
	token     uint64    // of the lease that it has, or had last; 0 when another has led since
	turned    string    // the generation of its last turn
	holdUntil time.Time
	failing   bool
	nodes     map[string]nodeSeen
	workers   map[string]*workerSeen
	streams   map[string]*streamSeen
	ledgers   *store.Ledgers
	view      *placement.Snapshot
	statuses  map[string]stream.RunStatus // what the runs of publishing streams reported last
	statusAt  time.Time                   // when that was read
	repaired  map[string]time.Time        // worker → when its ledgers were last repaired
	moved     time.Time                   // when rebalancing last moved something
	looked    time.Time                   // when it last looked for something to move
	from      string                      // the stream that the next turn starts at; "" for the first
}

const lease = "controller"

// DefaultDrainMoves is Config.DrainMoves unless given.
const DefaultDrainMoves = 2

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
	return &Controller{cfg: cfg, store: s, tasks: tasks, probe: probe, log: log.Named("controller"), now: time.Now, m: m,
		state: databaseSeen{epochs: map[string]given{}}}, nil
}
