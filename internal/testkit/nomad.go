package testkit

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Nomad is a real Nomad of one test: a server and a client in one process, on
// loopback, without state of an earlier start.
type Nomad struct {
	Addr string // URL of the HTTP API

	t      testing.TB
	binary string
	config string
	proc   *Process
}

// nomadDeadline bounds a start: the leader's election and the client's
// registration take 3 to 6 s unloaded.
const nomadDeadline = 90 * time.Second

// StartNomad starts Nomad (DIONYSIA_NOMAD, else nomad on PATH) and waits until its
// node is ready; it is stopped at the test's end.
func StartNomad(t testing.TB) *Nomad {
	t.Helper()
	ports := consulPorts(t, 3)
	dir := t.TempDir()
	n := &Nomad{Addr: "http://" + loopback(ports[0]), t: t, binary: Part(t, "DIONYSIA_NOMAD", "nomad"), config: filepath.Join(dir, "nomad.json")}
	config, err := json.Marshal(map[string]any{
		"bind_addr": "127.0.0.1", "disable_update_check": true, "log_level": "WARN", "data_dir": filepath.Join(dir, "data"),
		"ports": map[string]int{"http": ports[0], "rpc": ports[1], "serf": ports[2]},
		// Nothing is asked of a cloud's metadata service, nor of Consul.
		"client": map[string]any{"options": map[string]string{"fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean,consul,vault"}},
	})
	if err != nil {
		t.Fatalf("nomad config: %v", err)
	}
	if err := os.WriteFile(n.config, config, 0o600); err != nil {
		t.Fatalf("nomad config: %v", err)
	}
	n.Start()
	return n
}

// Start starts Nomad again after Kill, on the same ports, as another cluster.
func (n *Nomad) Start() {
	n.t.Helper()
	n.proc = StartProcess(n.t, "nomad", exec.Command(n.binary, "agent", "-dev", "-config="+n.config))
	client := &http.Client{Timeout: time.Second}
	n.proc.awaitReady(n.t, nomadDeadline, "nomad", func() error {
		resp, err := client.Get(n.Addr + "/v1/nodes")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var nodes []struct{ Status string }
		if err := json.NewDecoder(resp.Body).Decode(&nodes); err != nil {
			return err
		}
		if len(nodes) != 1 || nodes[0].Status != "ready" {
			return fmt.Errorf("nodes: %+v", nodes)
		}
		return nil
	})
}

// Kill kills Nomad as kill -9 does and waits until it is gone.
func (n *Nomad) Kill() { n.proc.Kill() }
