// Package roles builds each role from its flags: the same for a role that runs
// alone and for `dionysia dev`, which runs all of them in one process.
package roles

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/discovery"
	"github.com/dionysia-dev/dionysia/services/nomad"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/version"
)

// App is a role that runs.
type App interface {
	// Stop drains and ends it, within ctx.
	Stop(ctx context.Context)
}

// stack stops what it holds, last in, first out.
type stack []func(context.Context)

func (s *stack) add(f func(context.Context)) { *s = append(*s, f) }

// Stop implements App.
func (s *stack) Stop(ctx context.Context) {
	for i := len(*s) - 1; i >= 0; i-- {
		(*s)[i](ctx)
	}
	*s = nil
}

// addErr is add for a part whose end can fail; that is logged.
func (s *stack) addErr(log hclog.Logger, what string, stop func(context.Context) error) {
	s.add(func(ctx context.Context) {
		if err := stop(ctx); err != nil {
			log.Warn("stopping "+what, "error", err)
		}
	})
}

// begin lets start begin a role's parts, each with what ends it on the stack.
// When start fails those that it began are ended.
func begin(ctx context.Context, start func(s *stack) error) (App, error) {
	s := &stack{}
	if err := start(s); err != nil {
		s.Stop(ctx)
		return nil, err
	}
	return s, nil
}

// SecretFlags name the secret that all roles of an installation share.
type SecretFlags struct {
	SecretFile string `name:"secret-file" help:"File with the cluster secret, the same for every role; mode 0600. Anything of 32 bytes or more, e.g. from: openssl rand -hex 32." env:"DIONYSIA_SECRET_FILE" required:"" type:"path"`
}

// Secret reads the file.
func (f SecretFlags) Secret() (auth.Secret, error) {
	s, err := auth.LoadSecretFile(f.SecretFile, 32)
	if err != nil {
		return nil, fmt.Errorf("--secret-file: %w", err)
	}
	return s, nil
}

// credential reads a password or token that somebody else made: of any length.
func credential(flag, path string) (string, error) {
	s, err := auth.LoadSecretFile(path, 1)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	return string(s), nil
}

// RedisFlags say where the two Redis roles are.
type RedisFlags struct {
	State    string `name:"redis-state" help:"Redis for what must last: streams, keys, placements. redis://HOST:PORT/DB" default:"redis://127.0.0.1:6379/0" env:"DIONYSIA_REDIS_STATE"`
	Live     string `name:"redis-live" help:"Redis for heartbeats, tasks and notifications; empty uses --redis-state." env:"DIONYSIA_REDIS_LIVE"`
	Password string `name:"redis-password-file" help:"File with the password of both; mode 0600." env:"DIONYSIA_REDIS_PASSWORD_FILE" type:"path"`
}

// Open opens the store and returns also the URL of live with its password.
func (f RedisFlags) Open(ctx context.Context, log hclog.Logger, reg prometheus.Registerer) (*store.Store, string, error) {
	password := ""
	if f.Password != "" {
		var err error
		if password, err = credential("--redis-password-file", f.Password); err != nil {
			return nil, "", err
		}
	}
	state, err := withPassword(f.State, password)
	if err != nil {
		return nil, "", fmt.Errorf("--redis-state: %w", err)
	}
	live := state
	if f.Live != "" {
		if live, err = withPassword(f.Live, password); err != nil {
			return nil, "", fmt.Errorf("--redis-live: %w", err)
		}
	}
	s, err := store.Open(ctx, store.Options{StateURL: state, LiveURL: live, Logger: log, Registerer: reg})
	if err != nil {
		return nil, "", err
	}
	return s, live, nil
}

// open is Open for as long as the role runs.
func (f RedisFlags) open(ctx context.Context, s *stack, log hclog.Logger, reg prometheus.Registerer) (*store.Store, string, error) {
	st, live, err := f.Open(ctx, log, reg)
	if err != nil {
		return nil, "", err
	}
	s.add(func(context.Context) { _ = st.Close() })
	return st, live, nil
}

// ConsulFlags say where Consul is.
type ConsulFlags struct {
	Addr  string `name:"consul" help:"Consul agent's HTTP API, host:port; empty takes CONSUL_HTTP_ADDR, then 127.0.0.1:8500. 'off' registers nothing." env:"DIONYSIA_CONSUL_ADDR"`
	Token string `name:"consul-token-file" help:"File with the Consul ACL token; empty takes CONSUL_HTTP_TOKEN." env:"DIONYSIA_CONSUL_TOKEN_FILE" type:"path"`
}

func (f ConsulFlags) options(ready func(context.Context) error, log hclog.Logger) (discovery.RegistrarOptions, error) {
	opts := discovery.RegistrarOptions{Addr: f.Addr, Ready: ready, Logger: log}
	if f.Token != "" {
		var err error
		if opts.Token, err = credential("--consul-token-file", f.Token); err != nil {
			return opts, err
		}
	}
	return opts, nil
}

// register puts svc, reached at advertise or else at listen, into Consul for as
// long as the role runs. Without an ID its name and address make one.
func (f ConsulFlags) register(ctx context.Context, s *stack, svc discovery.Service, listen, advertise string,
	ready func(context.Context) error, log hclog.Logger,
) error {
	if f.Addr == "off" {
		return nil
	}
	opts, err := f.options(ready, log)
	if err != nil {
		return err
	}
	if svc.Address, svc.Port, err = discovery.Advertised(listen, advertise); err != nil {
		return fmt.Errorf("%s: --advertise: %w", svc.Name, err)
	}
	if svc.ID == "" {
		svc.ID = fmt.Sprintf("%s-%s-%d", svc.Name, svc.Address, svc.Port)
	}
	r, err := discovery.NewRegistrar(svc, opts)
	if err != nil {
		return err
	}
	if err := r.Start(ctx); err != nil {
		return err
	}
	s.addErr(log, "the registration in Consul; its check will expire", r.Stop)
	return nil
}

// NomadFlags say where Nomad is. TLS is set as for Nomad's own command, by
// NOMAD_CACERT, NOMAD_CLIENT_CERT, NOMAD_CLIENT_KEY and NOMAD_TLS_SERVER_NAME.
type NomadFlags struct {
	Addr  string `name:"nomad-addr" help:"URL of Nomad's HTTP API, such as http://127.0.0.1:4646 or unix:///secrets/api.sock: workers on nodes that drain or are ineligible are drained, those on nodes that are down are probed early. TLS as for nomad itself: NOMAD_CACERT and the like. 'off' uses no Nomad." default:"off" env:"DIONYSIA_NOMAD_ADDR"`
	Token string `name:"nomad-token-file" help:"File with the Nomad ACL token, read for each request; it needs node:read and, in its own namespace, read-job; with --scale-jobs also scale-job. Empty takes NOMAD_TOKEN." env:"DIONYSIA_NOMAD_TOKEN_FILE" type:"path"`
}

// client is nil without Nomad.
func (f NomadFlags) client() (*nomad.Client, error) {
	if f.Addr == "" || f.Addr == nomad.Off {
		return nil, nil
	}
	if err := nomad.CheckAddr(f.Addr); err != nil {
		return nil, fmt.Errorf("--nomad-addr (DIONYSIA_NOMAD_ADDR): %w", err)
	}
	opts := nomad.Options{Addr: f.Addr}
	if f.Token != "" {
		opts.Token = func() (string, error) { return credential("--nomad-token-file", f.Token) }
		if _, err := opts.Token(); err != nil {
			return nil, err
		}
	}
	return nomad.NewClient(opts)
}

// follow starts a follower for as long as the role runs; nil without Nomad.
func (f NomadFlags) follow(ctx context.Context, s *stack, log hclog.Logger) (*nomad.Follower, error) {
	c, err := f.client()
	if err != nil || c == nil {
		return nil, err
	}
	follower := nomad.NewFollower(c, log)
	follower.Start(ctx)
	s.add(follower.Stop)
	return follower, nil
}

// NewRegistry returns a metrics registry with the process's and Go's own.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "dionysia_build_info", Help: "1; the label is the version that runs.",
			ConstLabels: prometheus.Labels{"version": version.String()}}, func() float64 { return 1 }))
	return r
}
