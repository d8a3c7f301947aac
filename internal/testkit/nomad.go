package testkit

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Nomad is a real Nomad of one test: a server and a client in one process, on
// loopback, without state of an earlier start.
type Nomad struct {
	Addr string // URL of the HTTP API

	acl bool

	t      testing.TB
	binary string
	config string
	proc   *Process
}

// nomadToken is the management token where access control is on.
const nomadToken = "00000000-0000-4000-8000-000000000002"

// nomadDeadline bounds a start: the leader's election and the client's
// registration take 3 to 6 s unloaded.
const nomadDeadline = 90 * time.Second

// StartNomad starts Nomad (DIONYSIA_NOMAD, else nomad on PATH) and waits until its
// node is ready; it is stopped at the test's end.
func StartNomad(t testing.TB) *Nomad {
	t.Helper()
	return startNomad(t, false)
}

// StartNomadWithACL is StartNomad with access control on; the token may do all.
func StartNomadWithACL(t testing.TB) (n *Nomad, token string) {
	t.Helper()
	return startNomad(t, true), nomadToken
}

func startNomad(t testing.TB, acl bool) *Nomad {
	t.Helper()
	ports := FreePorts(t, 3)
	dir := t.TempDir()
	t.Cleanup(func() { tidy(t, dir) }) // after Nomad's end, before the folder's
	n := &Nomad{Addr: "http://" + loopback(ports[0]), acl: acl, t: t, binary: Part(t, "DIONYSIA_NOMAD", "nomad"), config: filepath.Join(dir, "nomad.json")}
	config, err := json.Marshal(map[string]any{
		"bind_addr": "127.0.0.1", "disable_update_check": true, "log_level": "WARN", "data_dir": filepath.Join(dir, "data"),
		"ports": map[string]int{"http": ports[0], "rpc": ports[1], "serf": ports[2]},
		"acl":   map[string]bool{"enabled": acl},
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
	cmd := exec.Command(n.binary, "agent", "-dev", "-config="+n.config)
	cmd.Env = append(os.Environ(), "TMPDIR="+filepath.Dir(n.config)) // where the sockets of its plugins stay when it is killed
	n.proc = StartProcess(n.t, "nomad", cmd)
	client := &http.Client{Timeout: time.Second}
	n.proc.awaitReady(n.t, nomadDeadline, "nomad", func() error {
		if n.acl {
			// The answer of an attempt may have been lost: the secret is ours, and who
			// has it need not ask again.
			body := strings.NewReader(`{"BootstrapSecret":"` + nomadToken + `"}`)
			_ = n.ask(client, http.MethodPost, "/v1/acl/bootstrap", body, new(any))
		}
		var nodes []struct{ Status string }
		if err := n.ask(client, http.MethodGet, "/v1/nodes", nil, &nodes); err != nil {
			return err
		}
		if len(nodes) != 1 || nodes[0].Status != "ready" {
			return fmt.Errorf("nodes: %+v", nodes)
		}
		return nil
	})
}

func (n *Nomad) ask(client *http.Client, method, path string, body io.Reader, answer any) error {
	req, err := http.NewRequest(method, n.Addr+path, body)
	if err != nil {
		return err
	}
	if n.acl {
		req.Header.Set("X-Nomad-Token", nomadToken)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

// tidy ends the tasks of a Nomad that was killed, which outlive it, and takes away
// what it had mounted for them, which would keep the folder from being removed.
func tidy(t testing.TB, dir string) {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Errorf("looking for processes: %v", err)
	}
	for _, p := range procs {
		env, _ := os.ReadFile(p + "/environ") // of a process that has ended meanwhile there is none
		args, _ := os.ReadFile(p + "/cmdline")
		task := strings.Contains(string(env), "NOMAD_ALLOC_DIR="+dir+"/")
		executor := strings.Contains(string(args), `executor`) && strings.Contains(string(args), dir+"/")
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil && (task || executor) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Errorf("looking for mounts: %v", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			if err := syscall.Unmount(f[1], syscall.MNT_DETACH); err != nil {
				t.Errorf("unmounting %s: %v", f[1], err)
			}
		}
	}
}

// Kill kills Nomad as kill -9 does and waits until it is gone. Its tasks go on until
// the test's end.
func (n *Nomad) Kill() { n.proc.Kill() }
