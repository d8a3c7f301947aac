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
	"github.com/dionysia-dev/dionysia/services/store"
)

// API runs the management API and, when it holds the lease, the controller.
type API struct {
	Listen     string       `help:"Address of the management API." default:"127.0.0.1:8080" env:"DIONYSIA_API_LISTEN"`
	Advertise  string       `help:"host:port that Consul tells others; needed when --listen names no host." env:"DIONYSIA_API_ADVERTISE"`
	AdminToken string       `name:"admin-token-file" help:"File with the bootstrap admin token; mode 0600." required:"" env:"DIONYSIA_ADMIN_TOKEN_FILE" type:"path"`
	Secret     SecretFlags  `embed:""`
	Redis      RedisFlags   `embed:"" group:"Redis"`
	Consul     ConsulFlags  `embed:"" group:"Consul"`
	Nomad      NomadFlags   `embed:"" group:"Nomad"`
	Placing    PlacingFlags `embed:"" group:"Placing streams"`
	Scaling    ScalingFlags `embed:"" group:"Scaling"`
}

// Start starts it.
func (f API) Start(ctx context.Context, log hclog.Logger, reg *prometheus.Registry) (App, error) {
	return begin(ctx, func(s *stack) error {
		placing, err := f.Placing.config()
		if err != nil {
			return err
		}
		secret, err := f.Secret.Secret()
		if err != nil {
			return err
		}
		admin, err := credential("--admin-token-file", f.AdminToken)
		if err != nil {
			return err
		}
		st, live, err := f.Redis.open(ctx, s, log, reg)
		if err != nil {
			return err
		}
		deps := api.Deps{Store: st, Logger: log, Registry: reg}
		follower, err := f.Nomad.follow(ctx, s, log)
		if err != nil {
			return err
		}
		if follower != nil { // a nil in an interface would not be nil
			deps.Nodes, placing.Nodes = follower, follower
		}
		if placing.Beside, err = f.scale(log, reg); err != nil {
			return err
		}
		srv := api.New(api.Config{Listen: f.Listen, AdminToken: admin, InternalToken: secret.Derive("internal-api"), Policy: f.Placing.Placement()},
			deps)
		if err := srv.Start(ctx); err != nil {
			return err
		}
		s.addErr(log, "the api", srv.Stop)
		if err := control(ctx, s, st, live, placing, log, reg); err != nil {
			return err
		}
		return f.Consul.register(ctx, s, discovery.Service{Name: "api"}, f.Listen, f.Advertise, st.Ping, log)
	})
}

// control starts the controller of an api.
func control(ctx context.Context, s *stack, st *store.Store, live string, placing controller.Config, log hclog.Logger, reg *prometheus.Registry) error {
	opt, err := asynq.ParseRedisURI(live)
	if err != nil {
		return fmt.Errorf("--redis-live: %w", err)
	}
	tasks := asynq.NewClient(opt)
	s.add(func(context.Context) { _ = tasks.Close() })
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("this host's name: %w", err)
	}
	placing.Holder = fmt.Sprintf("%s:%d", host, os.Getpid())
	ctl, err := controller.New(placing, st, tasks, probeOrigin, log, reg)
	if err != nil {
		return err
	}
	if err := ctl.Start(ctx); err != nil {
		return err
	}
	s.add(ctl.Stop)
	return nil
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
