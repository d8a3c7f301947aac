// Package roles builds each role from its flags: the same for a role that runs
// alone and for `dionysia dev`, which runs all of them in one process.
package roles

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/discovery"
	"github.com/dionysia-dev/dionysia/services/store"
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

// SecretFlags name the secret that all roles of an installation share.
type SecretFlags struct {
	SecretFile string `name:"secret-file" help:"File with the cluster secret, the same for every role; mode 0600. Anything of 32 bytes or more, e.g. from: openssl rand -hex 32." env:"DIONYSIA_SECRET_FILE" required:"" type:"path"`
}

// Secret reads the file.
func (f SecretFlags) Secret() (auth.Secret, error) {
	s, err := readSecret(f.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("--secret-file: %w", err)
	}
	if len(s) < 32 {
		return nil, fmt.Errorf("--secret-file %s: %d bytes are too few, 32 are needed", f.SecretFile, len(s))
	}
	return auth.Secret(s), nil
}

// readSecret reads a secret from a file that nobody else can read.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s can be read by others (mode %04o): chmod 600 %s", path, info.Mode().Perm(), path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return s, nil
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
		if password, err = readSecret(f.Password); err != nil {
			return nil, "", fmt.Errorf("--redis-password-file: %w", err)
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

// ConsulFlags say where Consul is.
type ConsulFlags struct {
	Addr  string `name:"consul" help:"Consul agent's HTTP API, host:port; empty takes CONSUL_HTTP_ADDR, then 127.0.0.1:8500. 'off' registers nothing." env:"DIONYSIA_CONSUL_ADDR"`
	Token string `name:"consul-token-file" help:"File with the Consul ACL token; empty takes CONSUL_HTTP_TOKEN." env:"DIONYSIA_CONSUL_TOKEN_FILE" type:"path"`
}

func (f ConsulFlags) options(ready func(context.Context) error, log hclog.Logger) (discovery.RegistrarOptions, error) {
	opts := discovery.RegistrarOptions{Addr: f.Addr, Ready: ready, Logger: log}
	if f.Token != "" {
		var err error
		if opts.Token, err = readSecret(f.Token); err != nil {
			return opts, fmt.Errorf("--consul-token-file: %w", err)
		}
	}
	return opts, nil
}

// register puts svc into Consul for as long as the role runs.
func (f ConsulFlags) register(ctx context.Context, svc discovery.Service, ready func(context.Context) error, log hclog.Logger) (func(context.Context), error) {
	if f.Addr == "off" {
		return func(context.Context) {}, nil
	}
	opts, err := f.options(ready, log)
	if err != nil {
		return nil, err
	}
	r, err := discovery.NewRegistrar(svc, opts)
	if err != nil {
		return nil, err
	}
	if err := r.Start(ctx); err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		if err := r.Stop(ctx); err != nil {
			log.Warn("deregistering from Consul failed; its check will expire", "error", err)
		}
	}, nil
}

// NewRegistry returns a metrics registry with the process's and Go's own.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// advertised returns the address that others reach listen at: advertise when
// it is set, otherwise listen's own when it names a host.
func advertised(listen, advertise string) (host string, port int, err error) {
	addr := listen
	if advertise != "" {
		addr = advertise
	}
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("address %q: %w", addr, err)
	}
	if port, err = strconv.Atoi(p); err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("address %q: a port is 1 to 65535", addr)
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		return "", 0, errors.New("it listens on every interface: say with --advertise which address the others reach it at")
	}
	return host, port, nil
}
