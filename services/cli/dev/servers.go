package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Parts are the third-party programs. Each is a path or a name on PATH.
type Parts struct {
	Redis    string `name:"redis-server" help:"Redis server." default:"redis-server" env:"DIONYSIA_REDIS_SERVER"`
	Consul   string `name:"consul" help:"Consul." default:"consul" env:"DIONYSIA_CONSUL"`
	MediaMTX string `name:"mediamtx" help:"mediamtx." default:"mediamtx" env:"DIONYSIA_MEDIAMTX"`
	GPAC     string `name:"gpac" help:"GPAC." default:"gpac" env:"DIONYSIA_GPAC"`
	FFmpeg   string `name:"ffmpeg" help:"ffmpeg, for the demo's test picture only." default:"ffmpeg" env:"DIONYSIA_FFMPEG"`
}

// find resolves every part to an absolute path, or says which is missing.
func (p *Parts) find(demo bool) error {
	for _, part := range []struct {
		what string
		path *string
		need bool
	}{
		{"Redis", &p.Redis, true}, {"Consul", &p.Consul, true}, {"mediamtx", &p.MediaMTX, true},
		{"GPAC", &p.GPAC, true}, {"ffmpeg", &p.FFmpeg, demo},
	} {
		if !part.need {
			continue
		}
		full, err := exec.LookPath(*part.path)
		if err == nil {
			full, err = filepath.Abs(full)
		}
		if err != nil {
			return fmt.Errorf("%s is missing (%w): `make run` installs it, or name it with its flag (see --help)", part.what, err)
		}
		*part.path = full
	}
	return nil
}

func (d *Dev) startRedis(ctx context.Context) error {
	dir := filepath.Join(d.DataDir, "redis")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	conf := strings.Join([]string{
		"bind 127.0.0.1",
		fmt.Sprintf("port %d", d.Ports.Redis),
		"requirepass " + d.redisPassword,
		"dir " + dir,
		"appendonly yes",
		"appendfsync always", // what was acknowledged survives a kill -9
		"save \"\"",
		"maxmemory-policy noeviction",
		"daemonize no",
		"",
	}, "\n")
	path := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	c, err := d.spawn("redis", syscall.SIGTERM, nil, d.Parts.Redis, path)
	if err != nil {
		return err
	}
	rdb := redis.NewClient(&redis.Options{Addr: loop(d.Ports.Redis), Password: d.redisPassword, MaxRetries: -1})
	defer func() { _ = rdb.Close() }()
	return c.waitReady(ctx, func(ctx context.Context) error { return rdb.Ping(ctx).Err() })
}

func (d *Dev) startConsul(ctx context.Context) error {
	dir := filepath.Join(d.DataDir, "consul")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("consul: %w", err)
	}
	conf := map[string]any{
		"node_name":        "dionysia-dev",
		"datacenter":       "dev",
		"server":           true,
		"bootstrap_expect": 1,
		"data_dir":         filepath.Join(dir, "data"),
		"bind_addr":        "127.0.0.1",
		"client_addr":      "127.0.0.1",
		"ui_config":        map[string]any{"enabled": true},
		"log_level":        "INFO",
		"ports": map[string]int{"http": d.Ports.ConsulUI, "dns": d.Ports.ConsulDNS, "server": d.Ports.ConsulRPC,
			"serf_lan": d.Ports.ConsulLAN, "serf_wan": -1, "grpc": -1, "grpc_tls": -1, "https": -1},
		"dns_config":           map[string]any{"only_passing": true, "enable_truncate": true, "service_ttl": map[string]string{"*": "1s"}},
		"performance":          map[string]any{"raft_multiplier": 1},
		"disable_update_check": true,
		"leave_on_terminate":   false,
	}
	b, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		return fmt.Errorf("consul: %w", err)
	}
	path := filepath.Join(dir, "consul.json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return fmt.Errorf("consul: %w", err)
	}
	c, err := d.spawn("consul", syscall.SIGTERM, nil, d.Parts.Consul, "agent", "-config-file="+path)
	if err != nil {
		return err
	}
	url := "http://" + loop(d.Ports.ConsulUI) + "/v1/status/leader"
	return c.waitReady(ctx, func(ctx context.Context) error { return answers(ctx, url, func(b []byte) bool { return len(b) > 4 }) })
}

// answers succeeds when url gives a 200 whose first bytes satisfy ok.
func answers(ctx context.Context, url string, ok func([]byte) bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	buf := make([]byte, 4096)
	n, _ := resp.Body.Read(buf)
	if resp.StatusCode != http.StatusOK || (ok != nil && !ok(buf[:n])) {
		return fmt.Errorf("%s: %s: %.200s", url, resp.Status, buf[:n])
	}
	return nil
}

// spawn starts a child and puts it on the stack of things to close.
func (d *Dev) spawn(name string, stop syscall.Signal, env []string, argv ...string) (*child, error) {
	c, err := startChild(d.log, name, filepath.Join(d.DataDir, "logs"), stop, env, argv...)
	if err != nil {
		return nil, err
	}
	d.watch(c)
	d.onClose(name, func(context.Context) { c.close(8 * time.Second) })
	return c, nil
}
