package router

import (
	"context"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Mode is how viewers get what an origin has.
type Mode string

// The modes.
const (
	// ModeProxy fetches from the origin, caches, and answers itself.
	ModeProxy Mode = "proxy"
	// ModeRedirect answers 307 with the origin's address. Nothing is cached, no
	// last good manifest is kept, and the origin is not told the highest epoch.
	ModeRedirect Mode = "redirect"
)

// Config says how a router works. The zero value of a field takes its default.
type Config struct {
	// Listen is the address to serve at, host:port. Default ":8090".
	Listen string
	// AdminListen, when set, serves /metrics, /healthz and /readyz there instead
	// of at Listen.
	AdminListen string
	Mode        Mode // default ModeProxy
	// CacheBytes bounds the memory of segments: cached, filling, and evicted
	// while clients still read them. Default 256 MiB.
	CacheBytes int64
	// MaxObjectBytes bounds one segment. Default a quarter of CacheBytes, at
	// most 64 MiB.
	MaxObjectBytes int64
	// WebDir holds hls.min.js and dash.all.min.js for the watch page.
	WebDir string
	// NoPrefetch leaves the live window of watched streams to the requests for it.
	NoPrefetch bool
	// ManifestTTL is how long a manifest is served without asking the origin.
	// Default and maximum 500 ms.
	ManifestTTL time.Duration
	// NegativeTTL is how long a 404 is. Default and maximum 500 ms.
	NegativeTTL time.Duration
	// RouteTTL is how long a route is used without asking the store, unless the
	// store says that it changed. Default and maximum 1 s.
	RouteTTL time.Duration
	// OriginTimeout bounds the wait for an origin's response header. Default 3 s.
	OriginTimeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.Listen == "" {
		c.Listen = ":8090"
	}
	if c.Mode == "" {
		c.Mode = ModeProxy
	}
	if c.CacheBytes <= 0 {
		c.CacheBytes = 256 << 20
	}
	if c.MaxObjectBytes <= 0 {
		c.MaxObjectBytes = min(c.CacheBytes/4, 64<<20)
	}
	c.ManifestTTL = atMost(c.ManifestTTL, 500*time.Millisecond)
	c.NegativeTTL = atMost(c.NegativeTTL, 500*time.Millisecond)
	c.RouteTTL = atMost(c.RouteTTL, time.Second)
	if c.OriginTimeout <= 0 {
		c.OriginTimeout = 3 * time.Second
	}
	return c
}

// atMost returns d, or limit when d is unset or above it.
func atMost(d, limit time.Duration) time.Duration {
	if d <= 0 || d > limit {
		return limit
	}
	return d
}

// Store is what a router needs of Redis.
type Store interface {
	// Route returns what is known of a stream, or an error wrapping
	// stream.ErrNotFound when there is no such stream; stream.ErrDeleted when it was
	// deleted.
	Route(ctx context.Context, id string) (stream.Route, error)
	// Watch returns the ids of streams whose route changed, until ctx ends or
	// the connection is lost (the channel is then closed).
	Watch(ctx context.Context) <-chan string
	Ping(ctx context.Context) error
}

// Resolver turns an origin's id into addresses (host:port), best first.
type Resolver interface {
	Lookup(ctx context.Context, id string) ([]string, error)
	// Failed tells that an address of the origin did not answer, or another
	// origin did there.
	Failed(id string)
}

// Deps are what a router works with.
type Deps struct {
	Store    Store
	Resolver Resolver
	// SignEpoch makes the value of the Dionysia-Epoch header, by which an origin
	// that requires it knows a router (auth.Secret.SignEpoch). nil sends the bare
	// number.
	SignEpoch func(stream string, epoch uint64) string
	Logger    hclog.Logger
	Registry  *prometheus.Registry
}
