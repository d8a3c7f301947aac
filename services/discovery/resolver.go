package discovery

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// ResolverOptions says how a Resolver asks. The zero value of a duration takes
// its default.
type ResolverOptions struct {
	// Addr is Consul's DNS, host:port.
	Addr string
	// Domain is Consul's DNS domain. Default "consul".
	Domain string
	// Timeout bounds one question over UDP (asked twice at most) or TCP.
	// Default 500 ms.
	Timeout time.Duration
	// MinTTL is the floor under an answer's TTL: Consul's default TTL is 0.
	// Default 1 s.
	MinTTL time.Duration
	// MaxTTL is the ceiling. Default 30 s.
	MaxTTL     time.Duration
	Logger     hclog.Logger
	Registerer prometheus.Registerer
}

const (
	// staleWait is how long a caller that has an expired address waits for DNS
	// before it is given that address.
	staleWait = 150 * time.Millisecond
	// failedGap is the least time between two questions for an origin whose
	// address did not answer.
	failedGap = 100 * time.Millisecond
	// inUse is how long after its last use an address past its TTL is still given
	// out at once, while DNS is asked for a newer one: what is in use and answers
	// needs no newer one.
	inUse = time.Minute
	// maxOrigins and idleFor bound the memory: beyond so many origins those
	// not asked for within idleFor are forgotten.
	maxOrigins = 10000
	idleFor    = time.Hour
)

// Resolver finds origins by DNS. An answer is used for its TTL, and past that
// while DNS is asked again: nobody waits for that unless the address did not answer
// or was not in use. When DNS is away, or no longer knows the origin, the last
// address is used on, for as long as the caller finds it useful: no answer from
// DNS ever takes an address away.
//
//	unknown ──asked──▶ fresh ──TTL──▶ past it ──asked in turn──▶ fresh
//	                     │ Failed        │ not in use
//	                     ▼               ▼
//	                    in doubt: callers wait ──asked──▶ fresh
//
// It is safe for concurrent use.
type Resolver struct {
	opts ResolverOptions
	log  hclog.Logger
	dns  asker

	lookups *prometheus.CounterVec
	stale   *prometheus.CounterVec

	mu      sync.Mutex
	origins map[string]*known
	turns   turns
}

// known is what is known of one origin; Resolver.mu guards it.
type known struct {
	addrs   []string // host:port, best first; nil when never known
	err     error    // why addrs is nil or stale
	asked   time.Time
	expires time.Time
	used    time.Time
	doubt   bool          // past its TTL it is not given out before DNS is asked
	queued  bool          // it is in Resolver.turns
	pending chan struct{} // closed when the question in flight is answered; nil: none
}

// NewResolver returns a resolver that asks at opts.Addr.
func NewResolver(opts ResolverOptions) *Resolver {
	if opts.Domain == "" {
		opts.Domain = "consul"
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 500 * time.Millisecond
	}
	if opts.MinTTL <= 0 {
		opts.MinTTL = time.Second
	}
	if opts.MaxTTL <= 0 {
		opts.MaxTTL = 30 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	r := &Resolver{
		opts: opts, log: opts.Logger.Named("resolver"),
		dns:     newAsker(opts.Addr, opts.Timeout),
		origins: map[string]*known{},
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dionysia_discovery_lookups_total",
			Help: "Questions asked of Consul's DNS, by outcome: found, unknown (NXDOMAIN or empty), error.",
		}, []string{"outcome"}),
		stale: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dionysia_discovery_stale_total",
			Help: "Addresses given out past their TTL, by reason: asking (for a newer one), unknown, error, slow.",
		}, []string{"reason"}),
	}
	if opts.Registerer != nil {
		opts.Registerer.MustRegister(r.lookups, r.stale)
	}
	return r
}

// Lookup returns the addresses (host:port) of the origin id, best first. It
// waits for DNS only when it has no address that is within its TTL or in use and
// answering, and then, when it has an older one, only briefly. It returns an error
// wrapping ErrUnknown when DNS knows no such origin and none was known before.
func (r *Resolver) Lookup(ctx context.Context, id string) ([]string, error) {
	if err := CheckLabel(id); err != nil {
		return nil, fmt.Errorf("looking up origin: %w", err)
	}
	k, pending, reason := r.enter(id)
	if pending == nil {
		return r.result(k, reason)
	}
	var tooSlow <-chan time.Time
	if r.hasAddress(k) {
		t := time.NewTimer(staleWait)
		defer t.Stop()
		tooSlow = t.C
	}
	select {
	case <-pending:
		return r.result(k, "")
	case <-tooSlow:
		return r.result(k, "slow")
	case <-ctx.Done():
		return nil, fmt.Errorf("looking up origin %s: %w", id, ctx.Err())
	}
}

// Failed tells that an address of the origin id did not answer, or that another
// origin answered there: the next
// Lookup asks DNS again, at most ten times a second.
func (r *Resolver) Failed(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := r.origins[id]; k != nil {
		k.doubt = true
		if again := k.asked.Add(failedGap); again.Before(k.expires) {
			k.expires = again
		}
	}
}

// enter returns what is known of id, the question in flight when that must be
// waited for, and, when it need not, why what is known may be stale.
func (r *Resolver) enter(id string) (k *known, pending chan struct{}, reason string) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	k = r.origins[id]
	if k == nil {
		if len(r.origins) >= maxOrigins {
			r.forgetIdle(now)
		}
		k = &known{}
		r.origins[id] = k
	}
	k.doubt = k.doubt || now.Sub(k.used) > inUse
	k.used = now
	switch {
	case now.Before(k.expires):
		return k, nil, ""
	case k.addrs != nil && !k.doubt:
		r.askInTurn(id, k)
		return k, nil, "asking"
	case k.pending == nil:
		r.ask(id, k, now)
	}
	return k, k.pending, ""
}

// ask puts a question for id; r.mu is held, and none is in flight.
func (r *Resolver) ask(id string, k *known, now time.Time) {
	k.pending = make(chan struct{})
	k.asked = now
	go r.refresh(id, k, k.pending)
}

// forgetIdle makes room; r.mu is held.
func (r *Resolver) forgetIdle(now time.Time) {
	for id, k := range r.origins {
		if k.pending == nil && (k.addrs == nil || now.Sub(k.used) > idleFor) {
			delete(r.origins, id)
		}
	}
}

func (r *Resolver) hasAddress(k *known) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return k.addrs != nil
}

// result reads the outcome; reason is why it may be stale when the caller
// knows better.
func (r *Resolver) result(k *known, reason string) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k.addrs == nil {
		return nil, k.err
	}
	if k.err != nil && (reason == "" || reason == "asking") {
		reason = reasonOf(k.err)
	}
	if reason != "" {
		r.stale.WithLabelValues(reason).Inc()
	}
	return k.addrs, nil
}

// refresh asks DNS once. It belongs to no caller: one that gives up takes the
// answer from no other.
func (r *Resolver) refresh(id string, k *known, pending chan struct{}) {
	// Two tries over UDP and one over TCP.
	ctx, cancel := context.WithTimeout(context.Background(), 4*r.opts.Timeout)
	defer cancel()
	begin := time.Now()
	ans, err := r.dns.ask(ctx, fmt.Sprintf("%s.%s.service.%s.", id, OriginService, r.opts.Domain))
	outcome := "found"
	if err != nil {
		outcome = reasonOf(err)
	}
	r.lookups.WithLabelValues(outcome).Inc()

	r.mu.Lock()
	defer r.mu.Unlock()
	r.turns.note(time.Since(begin))
	before := k.err
	k.err, k.doubt = err, false
	k.expires = time.Now().Add(r.opts.MinTTL)
	if err == nil {
		k.addrs = ans.addrs
		k.expires = time.Now().Add(min(max(ans.ttl, r.opts.MinTTL), r.opts.MaxTTL))
	} else if k.addrs == nil {
		// Nothing to give: the origin may be about to register.
		k.expires = time.Now().Add(failedGap)
	}
	k.pending = nil
	close(pending)
	switch {
	case err != nil && before == nil:
		r.log.Warn("dns does not answer for origin", "origin", id, "error", err, "kept", k.addrs)
	case err == nil && before != nil:
		r.log.Info("dns answers for origin again", "origin", id, "addresses", k.addrs)
	}
}
