package roles

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// file writes a file of a test.
func file(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

type role interface {
	Start(context.Context, hclog.Logger, *prometheus.Registry) (App, error)
}

// TestStartRefuses shows that a role that can't start names the flag, and
// leaves nothing of itself.
func TestStartRefuses(t *testing.T) {
	redis, port := testkit.NewRedis(t), testkit.FreePort(t)
	here, everywhere := fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf(":%d", port)
	secret := SecretFlags{SecretFile: file(t, rand.Text()+rand.Text(), 0o600)}
	token := file(t, "t", 0o600) // any length will do
	state := RedisFlags{State: "redis://" + redis.Addr + "/0", Password: file(t, redis.Password, 0o600)}
	consul := ConsulFlags{Addr: "127.0.0.1:1"}
	router := Router{Listen: everywhere, Mode: "proxy", Cache: 16, DNS: "127.0.0.1:1", DNSDomain: "consul", Secret: secret, Redis: state, Consul: consul}
	with := func(change func(*Router)) Router {
		r := router
		change(&r)
		return r
	}
	for _, c := range []struct {
		name string
		role role
		want string
	}{
		{"no secret", with(func(r *Router) { r.Secret.SecretFile = filepath.Join(t.TempDir(), "none") }), "--secret-file: "},
		{"a short secret", with(func(r *Router) { r.Secret.SecretFile = file(t, strings.Repeat("x", 31), 0o600) }), "at least 32 are needed"},
		{"others' secret", with(func(r *Router) { r.Secret.SecretFile = file(t, strings.Repeat("x", 32), 0o640) }), "chmod 600"},
		{"an empty password", with(func(r *Router) { r.Redis.Password = file(t, "\n", 0o600) }), "--redis-password-file: "},
		{"an empty admin token", API{Listen: here, AdminToken: file(t, "", 0o600), Secret: secret, Redis: state}, "--admin-token-file: "},
		{"an empty Consul token", with(func(r *Router) { r.Listen, r.Consul.Token = here, file(t, "", 0o600) }), "--consul-token-file: "},
		{"a router everywhere", router, "router: --advertise: "},
		{"an api everywhere", API{Listen: everywhere, AdminToken: token, Secret: secret, Redis: state, Consul: consul}, "api: --advertise: "},
		{"mediamtx everywhere", Ingest{Listen: here, Node: "n", API: "http://127.0.0.1:1", MediaMTX: "http://127.0.0.1:1", RTMP: ":1935",
			RTSP: "127.0.0.1:8554", Secret: secret, Consul: consul}, "--rtmp: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			app, err := c.role.Start(t.Context(), hclog.NewNullLogger(), NewRegistry())
			if err == nil || !strings.Contains(err.Error(), c.want) || app != nil {
				t.Errorf("%v; it should say %q", err, c.want)
			}
			l, err := net.Listen("tcp", everywhere)
			if err != nil {
				t.Fatalf("its port afterwards: %v", err)
			}
			_ = l.Close()
		})
	}
}
