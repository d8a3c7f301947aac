package roles

import (
	"context"
	"fmt"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/discovery"
	"github.com/dionysia-dev/dionysia/services/ingest"
)

// Ingest runs the agent beside a mediamtx.
type Ingest struct {
	Listen   string      `help:"Address that mediamtx asks; keep it on loopback." default:"127.0.0.1:8092" env:"DIONYSIA_INGEST_LISTEN"`
	Node     string      `help:"This ingest node's id." default:"${hostname}" env:"DIONYSIA_INGEST_NODE"`
	API      string      `name:"api" help:"Base URL of the management API." default:"http://127.0.0.1:8080" env:"DIONYSIA_API"`
	MediaMTX string      `name:"mediamtx-api" help:"Base URL of mediamtx's control API." default:"http://127.0.0.1:9997" env:"DIONYSIA_MEDIAMTX_API"`
	RTMP     string      `help:"mediamtx's RTMP address as workers reach it, host:port." required:"" env:"DIONYSIA_INGEST_RTMP"`
	RTSP     string      `help:"mediamtx's RTSP address as workers reach it, host:port." required:"" env:"DIONYSIA_INGEST_RTSP"`
	Secret   SecretFlags `embed:""`
	Consul   ConsulFlags `embed:"" group:"Consul"`
}

// Start starts it.
func (f Ingest) Start(ctx context.Context, log hclog.Logger, reg *prometheus.Registry) (App, error) {
	return begin(ctx, func(s *stack) error {
		secret, err := f.Secret.Secret()
		if err != nil {
			return err
		}
		if _, _, err := discovery.Advertised(f.RTMP, ""); err != nil {
			return fmt.Errorf("--rtmp: %w", err)
		}
		a, err := ingest.New(ingest.Config{Listen: f.Listen, Node: f.Node, APIURL: f.API, MediaMTXAPI: f.MediaMTX,
			RTMPAddr: f.RTMP, RTSPAddr: f.RTSP, Secret: secret}, ingest.Deps{Logger: log, Registry: reg})
		if err != nil {
			return err
		}
		if err := a.Start(ctx); err != nil {
			return fmt.Errorf("starting the ingest agent: %w", err)
		}
		s.addErr(log, "the ingest agent", a.Stop)
		svc := discovery.Service{Name: "mediamtx", ID: "mediamtx-" + f.Node, Tags: []string{"rtmp"}, Meta: map[string]string{"node": f.Node, "rtsp": f.RTSP}}
		return f.Consul.register(ctx, s, svc, f.RTMP, "", a.Ready, log)
	})
}
