package roles

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
		{"an empty admin token", API{Placing: DefaultPlacing(), Listen: here, AdminToken: file(t, "", 0o600), Secret: secret, Redis: state}, "--admin-token-file: "},
		{"an empty Consul token", with(func(r *Router) { r.Listen, r.Consul.Token = here, file(t, "", 0o600) }), "--consul-token-file: "},
		{"a router everywhere", router, "router: --advertise: "},
		{"an api everywhere", API{Placing: DefaultPlacing(), Listen: everywhere, AdminToken: token, Secret: secret, Redis: state, Consul: consul}, "api: --advertise: "},
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

// startRoles starts all four and returns their registries, addresses and what
// stops them at once.
func startRoles(t *testing.T, consul ConsulFlags) (registries map[string]*prometheus.Registry, addrs map[string]string, stop func()) {
	t.Helper()
	redis, dir := testkit.NewRedis(t), t.TempDir()
	secret := SecretFlags{SecretFile: file(t, rand.Text()+rand.Text(), 0o600)}
	state := RedisFlags{State: "redis://" + redis.Addr + "/0", Password: file(t, redis.Password, 0o600)}
	ports := testkit.FreePorts(t, 4)
	addr := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", ports[n]) }
	roles := map[string]role{
		"api": API{Placing: DefaultPlacing(), Listen: addr(0), AdminToken: file(t, rand.Text(), 0o600), Secret: secret, Redis: state, Consul: consul},
		"ingest": Ingest{Listen: addr(1), Node: "one", API: "http://" + addr(0), MediaMTX: "http://127.0.0.1:1", RTMP: "127.0.0.1:1935",
			RTSP: "127.0.0.1:8554", Secret: secret, Consul: consul},
		"router": Router{Listen: addr(2), Mode: "proxy", Cache: 16, DNS: "127.0.0.1:1", DNSDomain: "consul", Timeout: time.Second,
			Secret: secret, Redis: state, Consul: consul},
		"worker": Worker{Listen: addr(3), ID: "w1", GPAC: testkit.Part(t, "DIONYSIA_GPAC", "gpac"), RunDir: filepath.Join(dir, "runs"),
			CacheDir: filepath.Join(dir, "cache"), CPUCapacity: 1 << 30, RunLimit: 64, Secret: secret, Redis: state, Consul: consul},
	}
	registries = map[string]*prometheus.Registry{}
	all := stack{}
	stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		all.Stop(ctx)
	}
	t.Cleanup(stop)
	for name, r := range roles {
		registries[name] = NewRegistry()
		app, err := r.Start(t.Context(), hclog.NewNullLogger(), registries[name])
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all.add(app.Stop)
	}
	return registries, map[string]string{"api": addr(0), "ingest": addr(1), "router": addr(2), "worker": addr(3)}, stop
}

// TestRegistersInConsul shows as what each role is found, and that one that
// stops is found no more.
func TestRegistersInConsul(t *testing.T) {
	consul := testkit.StartConsul(t, time.Second)
	_, addrs, stop := startRoles(t, ConsulFlags{Addr: consul.HTTPAddr})
	found := func() (map[string]string, error) {
		resp, err := http.Get("http://" + consul.HTTPAddr + "/v1/agent/services")
		if err != nil {
			return nil, err
		}
		defer func() { _ = resp.Body.Close() }()
		var all map[string]struct {
			ID, Service, Address string
			Port                 int
			Tags                 []string
		}
		if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
			return nil, err
		}
		out := map[string]string{}
		for _, s := range all {
			out[s.Service] = fmt.Sprintf("%s %s:%d %v", s.ID, s.Address, s.Port, s.Tags)
		}
		return out, nil
	}
	own := func(role string) string { return strings.Replace(addrs[role], ":", "-", 1) + " " + addrs[role] }
	want := map[string]string{
		"api":      "api-" + own("api") + " []",
		"mediamtx": "mediamtx-one 127.0.0.1:1935 [rtmp]",
		"router":   "router-" + own("router") + " [proxy]",
		"origin":   "origin-w1 " + addrs["worker"] + " [w1]",
	}
	testkit.Eventually(t, 30*time.Second, "all in Consul", func() error {
		got, err := found()
		if err != nil || !maps.Equal(got, want) {
			return fmt.Errorf("%v, %w; want %v", got, err, want)
		}
		return nil
	})
	stop()
	if got, err := found(); err != nil || len(got) != 0 {
		t.Errorf("after they stopped: %v, %v", got, err)
	}
}
