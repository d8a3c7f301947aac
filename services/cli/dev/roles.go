package dev

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/cli/roles"
	"github.com/dionysia-dev/dionysia/services/ingest"
)

type starter interface {
	Start(ctx context.Context, log hclog.Logger, reg *prometheus.Registry) (roles.App, error)
}

// run starts a role in this process, with a metrics registry of its own.
func (d *Dev) run(ctx context.Context, name string, r starter) error {
	app, err := r.Start(ctx, d.log, roles.NewRegistry())
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	d.onClose(name, app.Stop)
	return nil
}

func (d *Dev) file(name string) string { return filepath.Join(d.DataDir, name) }

func (d *Dev) redisFlags() roles.RedisFlags {
	return roles.RedisFlags{State: "redis://" + loop(d.Ports.Redis) + "/0", Password: d.file("redis.password")}
}

func (d *Dev) consulFlags() roles.ConsulFlags { return roles.ConsulFlags{Addr: loop(d.Ports.ConsulUI)} }

func (d *Dev) secretFlags() roles.SecretFlags {
	return roles.SecretFlags{SecretFile: d.file("cluster.secret")}
}

func (d *Dev) startAPI(ctx context.Context) error {
	return d.run(ctx, "api", roles.API{Listen: loop(d.Ports.API), AdminToken: d.file("admin.token"),
		Secret: d.secretFlags(), Redis: d.redisFlags(), Consul: d.consulFlags(), Placing: roles.DefaultPlacing()})
}

func (d *Dev) startIngest(ctx context.Context) error {
	return d.run(ctx, "ingest", roles.Ingest{Listen: loop(d.Ports.Ingest), Node: "dev", API: "http://" + loop(d.Ports.API),
		MediaMTX: "http://" + loop(d.Ports.MediaMTX), RTMP: loop(d.Ports.RTMP), RTSP: loop(d.Ports.RTSP),
		Secret: d.secretFlags(), Consul: d.consulFlags()})
}

func (d *Dev) startRouter(ctx context.Context) error {
	return d.run(ctx, "router", roles.Router{Listen: loop(d.Ports.Router), Mode: "proxy", Cache: 256, WebDir: d.WebDir,
		DNS: loop(d.Ports.ConsulDNS), DNSDomain: "consul", Secret: d.secretFlags(), Redis: d.redisFlags(), Consul: d.consulFlags()})
}

func (d *Dev) startMediaMTX(ctx context.Context) error {
	agent := "http://" + loop(d.Ports.Ingest)
	conf, err := ingest.MediaMTXConfig(ingest.MediaMTXParams{
		RTMP: loop(d.Ports.RTMP), RTSP: loop(d.Ports.RTSP), SRT: loop(d.Ports.SRT), WebRTC: loop(d.Ports.WHIP), ICE: loop(d.Ports.ICE),
		ICEHosts: []string{"127.0.0.1"}, API: loop(d.Ports.MediaMTX), AgentURL: agent, Secret: d.secret, Hook: []string{d.Self, "hook"},
	})
	if err != nil {
		return err
	}
	path := d.file("mediamtx.yml")
	if err := os.WriteFile(path, conf, 0o600); err != nil {
		return fmt.Errorf("mediamtx: %w", err)
	}
	c, err := d.spawn("mediamtx", syscall.SIGTERM, ingest.HookEnv(agent, d.secret), d.Parts.MediaMTX, path)
	if err != nil {
		return err
	}
	// Without credentials its API refuses, and that is an answer too.
	url := "http://" + loop(d.Ports.MediaMTX) + "/v3/paths/list"
	return c.waitReady(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}

func (d *Dev) startWorker(ctx context.Context) error {
	return d.run(ctx, "worker", roles.Worker{Listen: loop(d.Ports.Origin), ID: "dev", GPAC: d.Parts.GPAC, RunDir: d.file("runs"),
		CacheDir: d.file("cache"), CPUCapacity: d.CPUCapacity, NVMLLibrary: d.NVMLLibrary, Sessions: d.Sessions,
		Secret: d.secretFlags(), Redis: d.redisFlags(), Consul: d.consulFlags()})
}

// maybeDemo publishes the test picture, through a store of its own.
func (d *Dev) maybeDemo(ctx context.Context) error {
	st, _, err := d.redisFlags().Open(ctx, d.log, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	d.onClose("the demo's store", func(context.Context) { _ = st.Close() })
	return d.startDemo(ctx, st)
}
