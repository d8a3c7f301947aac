package roles

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/api"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/controller"
	"github.com/dionysia-dev/dionysia/services/discovery"
)

// API runs the management API and, when it holds the lease, the controller.
type API struct {
	Listen     string      `help:"Address of the management API." default:"127.0.0.1:8080" env:"DIONYSIA_API_LISTEN"`
	Advertise  string      `help:"host:port that Consul tells others; needed when --listen names no host." env:"DIONYSIA_API_ADVERTISE"`
	AdminToken string      `name:"admin-token-file" help:"File with the bootstrap admin token; mode 0600." required:"" env:"DIONYSIA_ADMIN_TOKEN_FILE" type:"path"`
	Secret     SecretFlags `embed:""`
	Redis      RedisFlags  `embed:"" group:"Redis"`
	Consul     ConsulFlags `embed:"" group:"Consul"`
}

// Start starts it.
func (f API) Start(ctx context.Context, log hclog.Logger, reg *prometheus.Registry) (_ App, err error) {
	s := &stack{}
	defer func() {
		if err != nil {
			s.Stop(ctx)
		}
	}()
	secret, err := f.Secret.Secret()
	if err != nil {
		return nil, err
	}
	admin, err := readSecret(f.AdminToken)
	if err != nil {
		return nil, fmt.Errorf("--admin-token-file: %w", err)
	}
	st, live, err := f.Redis.Open(ctx, log, reg)
	if err != nil {
		return nil, err
	}
	s.add(func(context.Context) { _ = st.Close() })

	srv := api.New(api.Config{Listen: f.Listen, AdminToken: admin, InternalToken: secret.Derive("internal-api")},
		api.Deps{Store: st, Logger: log, Registry: reg})
	if err := srv.Start(ctx); err != nil {
		return nil, err
	}
	s.add(func(ctx context.Context) {
		if err := srv.Stop(ctx); err != nil {
			log.Warn("stopping the api", "error", err)
		}
	})

	opt, err := asynq.ParseRedisURI(live)
	if err != nil {
		return nil, fmt.Errorf("--redis-live: %w", err)
	}
	tasks := asynq.NewClient(opt)
	s.add(func(context.Context) { _ = tasks.Close() })
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("this host's name: %w", err)
	}
	ctl, err := controller.New(controller.Config{Holder: fmt.Sprintf("%s:%d", host, os.Getpid())}, st, tasks, probeOrigin, log, reg)
	if err != nil {
		return nil, err
	}
	if err := ctl.Start(ctx); err != nil {
		return nil, err
	}
	s.add(ctl.Stop)

	if f.Consul.Addr == "off" {
		return s, nil
	}
	addr, port, err := advertised(f.Listen, f.Advertise)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	stop, err := f.Consul.register(ctx, discovery.Service{Name: "api", ID: fmt.Sprintf("api-%s-%d", addr, port), Address: addr, Port: port}, st.Ping, log)
	if err != nil {
		return nil, err
	}
	s.add(stop)
	return s, nil
}

// probeOrigin asks a worker's origin directly whether it lives.
func probeOrigin(ctx context.Context, r capacity.Report) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Origin+"/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("origin answered %s", resp.Status)
	}
	return nil
}
