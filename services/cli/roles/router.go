package roles

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/discovery"
	"github.com/dionysia-dev/dionysia/services/router"
)

// Router runs a router.
type Router struct {
	Listen      string        `help:"Address to serve viewers at." default:":8090" env:"DIONYSIA_ROUTER_LISTEN"`
	AdminListen string        `help:"Address for /metrics, /healthz and /readyz; empty serves them at --listen." env:"DIONYSIA_ROUTER_ADMIN_LISTEN"`
	Advertise   string        `help:"host:port that Consul tells others; needed when --listen names no host." env:"DIONYSIA_ROUTER_ADVERTISE"`
	Mode        string        `help:"proxy fetches from the origin, caches and answers; redirect sends viewers to the origin (307)." enum:"proxy,redirect" default:"proxy" env:"DIONYSIA_ROUTER_MODE"`
	Cache       int64         `name:"cache-mib" help:"Memory for segments, in MiB." default:"256" env:"DIONYSIA_ROUTER_CACHE_MIB"`
	NoPrefetch  bool          `help:"Do not fetch watched streams' segments ahead." env:"DIONYSIA_ROUTER_NO_PREFETCH"`
	WebDir      string        `help:"Folder with hls.min.js, for the watch page." env:"DIONYSIA_WEB_DIR" type:"path"`
	DNS         string        `name:"consul-dns" help:"Consul's DNS, host:port." default:"127.0.0.1:8600" env:"DIONYSIA_CONSUL_DNS"`
	DNSDomain   string        `name:"consul-domain" help:"Consul's DNS domain." default:"consul" env:"DIONYSIA_CONSUL_DOMAIN"`
	Timeout     time.Duration `name:"origin-timeout" help:"How long an origin may take to begin its answer." default:"3s" env:"DIONYSIA_ROUTER_ORIGIN_TIMEOUT"`
	Secret      SecretFlags   `embed:""`
	Redis       RedisFlags    `embed:"" group:"Redis"`
	Consul      ConsulFlags   `embed:"" group:"Consul"`
}

// Start starts it.
func (f Router) Start(ctx context.Context, log hclog.Logger, reg *prometheus.Registry) (App, error) {
	return begin(ctx, func(s *stack) error {
		secret, err := f.Secret.Secret()
		if err != nil {
			return err
		}
		st, _, err := f.Redis.open(ctx, s, log, reg)
		if err != nil {
			return err
		}
		res := discovery.NewResolver(discovery.ResolverOptions{Addr: f.DNS, Domain: f.DNSDomain, Logger: log, Registerer: reg})
		r, err := router.New(router.Config{Listen: f.Listen, AdminListen: f.AdminListen, Mode: router.Mode(f.Mode), CacheBytes: f.Cache << 20,
			WebDir: f.WebDir, NoPrefetch: f.NoPrefetch, OriginTimeout: f.Timeout},
			router.Deps{Store: st, Resolver: res, SignEpoch: secret.SignEpoch, Logger: log, Registry: reg})
		if err != nil {
			return err
		}
		if err := r.Start(ctx); err != nil {
			return fmt.Errorf("starting the router: %w", err)
		}
		s.addErr(log, "the router", r.Stop)
		return f.Consul.register(ctx, s, discovery.Service{Name: "router", Tags: []string{f.Mode}}, f.Listen, f.Advertise, r.Ready, log)
	})
}
