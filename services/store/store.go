// Package store keeps Dionysia's state in Redis: real state (streams, keys,
// profiles, placements, ledgers, epochs, leases) in the server "state", which
// fsyncs each write, and what may be lost (reports, claims, tails, events,
// notifications) in "live". One server may play both.
//
// Whatever must be atomic is one Lua script under lua/. The scripts derive some
// of their keys from values they read, so Redis Cluster is not supported; a
// single server, or a primary with replicas, is.
//
// Every call returns within Options.Timeout when Redis is away, or at once when
// the connection is refused, and works again when Redis does: nothing has to be
// reopened. A call that changes something and times out may have happened.
// Errors wrap the sentinels of services/stream; everything else is Redis'.
package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// How long what is live lives without being refreshed.
const (
	// ReportTTL is for ingest nodes' and workers' reports, and for publish claims.
	ReportTTL = 10 * time.Second
	statusTTL = 10 * time.Minute
	// tailTTL is for a broadcast that nobody ends; endedTailTTL for one that ended.
	tailTTL      = 7 * 24 * time.Hour
	endedTailTTL = time.Hour
	// eventsTTL counts from a stream's last event.
	eventsTTL = 30 * 24 * time.Hour
	maxEvents = 1000
	// originLinger is how long beyond its window an origin serves what was public.
	originLinger = 60 * time.Second
	// feedMax is about how many changes of ledgers the feed keeps: a reader that
	// is further behind reads all ledgers again.
	feedMax = 1 << 16
)

// Options configure a Store.
type Options struct {
	// StateURL and LiveURL are redis:// or rediss:// URLs with the password. An
	// empty LiveURL is StateURL.
	StateURL, LiveURL string
	// Timeout bounds dialling, and each read and write; default 1 s.
	Timeout time.Duration
	Logger  hclog.Logger
	// Registerer takes the metrics; nil for none. Stores may share one.
	Registerer prometheus.Registerer
}

// Store is Dionysia's view of Redis. It is safe for concurrent use.
type Store struct {
	state, live *redis.Client
	scripts     map[string]*redis.Script
	log         hclog.Logger
	bounds      bounds
	m           *metrics
}

// Open makes a Store. It does not wait for Redis and does not fail when Redis
// is away: Ping tells. It fails on a URL that is malformed.
func Open(_ context.Context, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	if o.LiveURL == "" {
		o.LiveURL = o.StateURL
	}
	scripts, err := loadScripts()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("store metrics: %w", err)
	}
	s := &Store{scripts: scripts, m: m, log: o.Logger.Named("store"), bounds: bounds{known: map[string]uint64{}}}
	if s.state, err = dial("state", o.StateURL, o.Timeout, s.log, m); err != nil {
		return nil, err
	}
	if o.LiveURL == o.StateURL {
		s.live = s.state
		return s, nil
	}
	if s.live, err = dial("live", o.LiveURL, o.Timeout, s.log, m); err != nil {
		_ = s.state.Close()
		return nil, err
	}
	return s, nil
}

func dial(role, url string, timeout time.Duration, log hclog.Logger, m *metrics) (*redis.Client, error) {
	opt, err := redis.ParseURL(url)
	if err != nil {
		// The error would quote the URL, and with it the password.
		return nil, fmt.Errorf("the URL of Redis %s is malformed: %w", role, stream.ErrInvalid)
	}
	opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout, opt.PoolTimeout = timeout, timeout, timeout, timeout
	opt.ContextTimeoutEnabled = true
	// No retries: a script whose answer was lost must not run again unseen, and
	// callers that are level-triggered come back by themselves.
	opt.MaxRetries = -1
	opt.DialerRetries = 1
	opt.ClientName = "dionysia"
	opt.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	c := redis.NewClient(opt)
	c.AddHook(&hook{role: role, log: log, m: m})
	return c, nil
}

// LogTo sends what the Redis client itself has to say to log, at debug: the
// Store reports what matters. The client's logger is the whole process', so main
// calls this once, before the first Open.
func LogTo(log hclog.Logger) { redis.SetLogger(clientLog{log.Named("redis")}) }

type clientLog struct{ log hclog.Logger }

// Printf implements the client's logger.
func (l clientLog) Printf(_ context.Context, format string, v ...any) {
	l.log.Debug(fmt.Sprintf(format, v...))
}

// Close closes the connections.
func (s *Store) Close() error {
	err := s.state.Close()
	if s.live != s.state {
		err = errors.Join(err, s.live.Close())
	}
	if err != nil {
		return fmt.Errorf("closing the store: %w", err)
	}
	return nil
}

// Ping returns nil when both servers answer.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.state.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("redis state: %w", err)
	}
	if s.live == s.state {
		return nil
	}
	if err := s.live.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("redis live: %w", err)
	}
	return nil
}

// Time returns Redis TIME of state, the clock that workers compare theirs with.
func (s *Store) Time(ctx context.Context) (time.Time, error) {
	t, err := s.state.Time(ctx).Result()
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the time of Redis: %w", err)
	}
	return t.UTC(), nil
}

// Generation names the state's database and the server that holds it. When it
// changes, state may have gone back in time: a controller then holds until the
// workers have reported, and raises each epoch above theirs (RaiseEpoch).
func (s *Store) Generation(ctx context.Context) (string, error) {
	id := fmt.Sprintf("%d", time.Now().UnixNano())
	if err := s.state.SetNX(ctx, keyGeneration, id, 0).Err(); err != nil {
		return "", fmt.Errorf("reading the generation: %w", err)
	}
	var generation func() string
	if _, err := s.state.Pipelined(ctx, func(p redis.Pipeliner) error {
		generation = pipeGeneration(ctx, p)
		return nil
	}); err != nil {
		return "", fmt.Errorf("reading the generation and the server's run id: %w", err)
	}
	return generation(), nil
}

// pipeGeneration reads the generation in a pipeline; what it returns tells it
// afterwards.
func pipeGeneration(ctx context.Context, p redis.Pipeliner) func() string {
	id, info := p.Get(ctx, keyGeneration), p.InfoMap(ctx, "server")
	return func() string { return id.Val() + "@" + info.Val()["Server"]["run_id"] }
}

// missing turns Redis' nil into stream.ErrNotFound.
func missing(err error, what, id string) error {
	if errors.Is(err, redis.Nil) {
		return fmt.Errorf("%s %q: %w", what, id, stream.ErrNotFound)
	}
	return fmt.Errorf("reading %s %q: %w", what, id, err)
}

// micros parses a time in µs that a script wrote.
func micros(s string) time.Time {
	var us int64
	if _, err := fmt.Sscan(s, &us); err != nil || us <= 0 || us == math.MaxInt64 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
