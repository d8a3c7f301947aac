package discovery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	consul "github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

// Service is one instance to register.
type Service struct {
	Name string // e.g. OriginService
	// ID is unique within the agent; empty means Name, or Name-Tags[0].
	ID      string
	Tags    []string
	Address string // as others reach it
	Port    int
	Meta    map[string]string
}

// RegistrarOptions says how a Registrar talks to Consul. The zero value of a
// duration takes its default.
type RegistrarOptions struct {
	// Addr is the agent's HTTP API, host:port or URL; empty takes what the
	// environment says (CONSUL_HTTP_ADDR), then 127.0.0.1:8500.
	Addr  string
	Token string // Consul ACL token; empty takes CONSUL_HTTP_TOKEN
	// TTL is how long the instance passes without a sign of life. Default 3 s.
	TTL time.Duration
	// Interval is the time between signs of life. Default TTL / 3.
	Interval time.Duration
	// Ready says whether the role can serve; nil is ready. While it returns an
	// error the check is critical with the error's text. nil means always ready.
	Ready  func(context.Context) error
	Logger hclog.Logger
}

const (
	defaultTTL = 3 * time.Second
	// readyText never changes: Consul sends a check whose output changed to
	// its servers, one whose output stays only every few minutes.
	readyText = "ready"
)

// Registrar keeps one service registered. It is level-triggered: each interval
// it says how the role is, and registers again when the agent does not know
// the instance (a restarted agent forgets). The first beat always registers.
//
//	absent ──register──▶ registered ──sign of life refused (404)──▶ absent
//	                         │ Stop
//	                         ▼
//	                    deregistered
type Registrar struct {
	svc    Service
	opts   RegistrarOptions
	client *consul.Client
	log    hclog.Logger

	poke   chan struct{}
	cancel context.CancelFunc
	done   chan struct{}
	// told is the loop's own: this process has registered once. Without it a
	// sign of life could keep an earlier process's address alive.
	told bool

	mu         sync.Mutex
	registered bool
	lastErr    error
}

// NewRegistrar checks svc and prepares the client; it does not talk to Consul.
func NewRegistrar(svc Service, opts RegistrarOptions) (*Registrar, error) {
	if svc.Name == "" || svc.Port < 1 || svc.Port > 65535 {
		return nil, fmt.Errorf("service %q: needs a name and a port", svc.Name)
	}
	if svc.Name == OriginService {
		if len(svc.Tags) != 1 {
			return nil, errors.New("service origin: needs exactly one tag, the origin's id")
		}
		if err := CheckLabel(svc.Tags[0]); err != nil {
			return nil, fmt.Errorf("service origin: %w", err)
		}
	}
	if svc.ID == "" {
		svc.ID = svc.Name
		if len(svc.Tags) > 0 {
			svc.ID += "-" + svc.Tags[0]
		}
	}
	if opts.TTL <= 0 {
		opts.TTL = defaultTTL
	}
	if opts.Interval <= 0 {
		opts.Interval = opts.TTL / 3
	}
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	cfg := consul.DefaultConfig()
	if opts.Addr != "" {
		cfg.Address = opts.Addr
	}
	if opts.Token != "" {
		cfg.Token = opts.Token
	}
	client, err := consul.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("preparing consul client: %w", err)
	}
	return &Registrar{
		svc: svc, opts: opts, client: client,
		log:  opts.Logger.Named("discovery").With("service", svc.ID),
		poke: make(chan struct{}, 1),
	}, nil
}

// Start begins the loop. It does not fail when Consul is away: the loop goes
// on trying.
func (r *Registrar) Start(context.Context) error {
	if r.cancel != nil {
		return errors.New("registrar already started")
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan struct{})
	go func() {
		defer close(r.done)
		r.loop(ctx)
	}()
	return nil
}

// Poke asks for a sign of life now, for example because readiness changed.
func (r *Registrar) Poke() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// Registered reports whether the agent had the instance at the last sign of
// life, and the last error if it did not.
func (r *Registrar) Registered() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.registered, r.lastErr
}

// Stop ends the loop and deregisters the instance. It returns an error when
// Consul could not be told before ctx ended; the check then expires by itself.
func (r *Registrar) Stop(ctx context.Context) error {
	if r.cancel == nil {
		return nil
	}
	r.cancel()
	<-r.done
	q := (&consul.QueryOptions{}).WithContext(ctx)
	err := r.client.Agent().ServiceDeregisterOpts(r.svc.ID, q)
	r.mu.Lock()
	r.registered = false
	r.mu.Unlock()
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("deregistering %s: %w", r.svc.ID, err)
	}
	r.log.Info("deregistered")
	return nil
}

func (r *Registrar) loop(ctx context.Context) {
	tick := time.NewTicker(r.opts.Interval)
	defer tick.Stop()
	for {
		err := r.beat(ctx)
		if ctx.Err() != nil {
			return
		}
		r.note(err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.poke:
		}
	}
}

// note logs the changes between well and ill, not every beat.
func (r *Registrar) note(err error) {
	r.mu.Lock()
	before := r.lastErr
	r.lastErr = err
	r.registered = err == nil
	r.mu.Unlock()
	switch {
	case err != nil && before == nil:
		r.log.Warn("cannot tell consul", "error", err)
	case err == nil && before != nil:
		r.log.Info("consul told again")
	}
}

// beat gives one sign of life, registering first when the agent has no such
// check.
func (r *Registrar) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(r.opts.Interval, time.Second))
	defer cancel()
	status, text := consul.HealthPassing, readyText
	if r.opts.Ready != nil {
		if err := r.opts.Ready(ctx); err != nil {
			status, text = consul.HealthCritical, err.Error()
		}
	}
	q := (&consul.QueryOptions{}).WithContext(ctx)
	if r.told {
		err := r.client.Agent().UpdateTTLOpts(r.checkID(), text, status, q)
		if err == nil || !isNotFound(err) {
			return err
		}
	}
	if err := r.register(ctx, status); err != nil {
		return fmt.Errorf("registering %s: %w", r.svc.ID, err)
	}
	r.told = true
	r.log.Info("registered", "address", r.svc.Address, "port", r.svc.Port, "tags", r.svc.Tags, "status", status)
	return nil
}

func (r *Registrar) checkID() string { return r.svc.ID + "-alive" }

func (r *Registrar) register(ctx context.Context, status string) error {
	reg := &consul.AgentServiceRegistration{
		ID: r.svc.ID, Name: r.svc.Name, Tags: r.svc.Tags,
		Address: r.svc.Address, Port: r.svc.Port, Meta: r.svc.Meta,
		Check: &consul.AgentServiceCheck{
			CheckID: r.checkID(), Name: "alive",
			TTL: r.opts.TTL.String(), Status: status,
		},
	}
	return r.client.Agent().ServiceRegisterOpts(reg,
		consul.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx))
}

// isNotFound reports Consul's answer for a check or service that it does not
// know.
func isNotFound(err error) bool {
	var status consul.StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}
