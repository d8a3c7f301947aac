package testkit

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Consul is a real Consul server of one test, on loopback, without state of an
// earlier start.
type Consul struct {
	HTTPAddr string // host:port of the HTTP API
	DNSAddr  string // host:port of DNS, UDP and TCP

	token string // of its management, "" without access control

	t      testing.TB
	binary string
	config string
	proc   *Process
}

// consulDeadline bounds a start: electing a leader takes 1 to 3 s unloaded.
const consulDeadline = 60 * time.Second

// StartConsul starts Consul (DIONYSIA_CONSUL, else consul on PATH) with DNS
// answering only for passing instances, answers that do not fit marked as
// truncated, and serviceTTL as the answers' TTL; it is stopped at the test's
// end.
func StartConsul(t testing.TB, serviceTTL time.Duration) *Consul {
	t.Helper()
	return startConsul(t, serviceTTL, "")
}

// StartConsulWithACL is StartConsul with access control on, which denies what is
// not allowed; the token may do all.
func StartConsulWithACL(t testing.TB) (c *Consul, token string) {
	t.Helper()
	token = "00000000-0000-4000-8000-000000000001"
	return startConsul(t, time.Second, token), token
}

func startConsul(t testing.TB, serviceTTL time.Duration, token string) *Consul {
	t.Helper()
	ports := FreePorts(t, 4)
	c := &Consul{
		HTTPAddr: loopback(ports[0]), DNSAddr: loopback(ports[1]),
		token: token, t: t, binary: Part(t, "DIONYSIA_CONSUL", "consul"),
		config: filepath.Join(t.TempDir(), "consul.json"),
	}
	config, err := json.Marshal(map[string]any{
		"bind_addr": "127.0.0.1", "client_addr": "127.0.0.1",
		"disable_update_check": true, "log_level": "warn",
		"ports": map[string]int{
			"http": ports[0], "dns": ports[1], "serf_lan": ports[2], "server": ports[3],
			"serf_wan": -1, "grpc": -1, "grpc_tls": -1, "https": -1,
		},
		"acl": map[string]any{
			"enabled": token != "", "default_policy": map[bool]string{true: "deny", false: "allow"}[token != ""],
			"tokens": map[string]string{"initial_management": token, "agent": token},
		},
		"connect": map[string]any{"enabled": false},
		"dns_config": map[string]any{
			"only_passing": true, "enable_truncate": true,
			"service_ttl": map[string]string{"*": serviceTTL.String()},
		},
	})
	if err != nil {
		t.Fatalf("consul config: %v", err)
	}
	if err := os.WriteFile(c.config, config, 0o600); err != nil {
		t.Fatalf("consul config: %v", err)
	}
	c.Start()
	return c
}

// Start starts Consul again after Kill, on the same ports, with an empty
// catalogue, and waits until it has a leader and answers DNS.
func (c *Consul) Start() {
	c.t.Helper()
	c.proc = StartProcess(c.t, "consul", exec.Command(c.binary, "agent", "-dev", "-config-file="+c.config))
	client := &http.Client{Timeout: time.Second}
	c.proc.awaitReady(c.t, consulDeadline, "consul", func() error { return c.ready(client) })
}

// Kill kills Consul as kill -9 does and waits until it is gone.
func (c *Consul) Kill() { c.proc.Kill() }

func (c *Consul) ready(client *http.Client) error {
	// The node's own entry is in the catalogue only once there is a leader.
	req, err := http.NewRequest(http.MethodGet, "http://"+c.HTTPAddr+"/v1/catalog/service/consul", nil)
	if err != nil {
		return err
	}
	req.Header.Set("X-Consul-Token", c.token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var nodes []any
	if err := json.NewDecoder(resp.Body).Decode(&nodes); err != nil {
		return err
	}
	if len(nodes) == 0 {
		return fmt.Errorf("no leader yet (%s)", resp.Status)
	}
	conn, err := net.DialTimeout("tcp", c.DNSAddr, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
