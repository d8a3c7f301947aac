// Package cluster tests the scripts of make cluster, without a cluster.
package cluster

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTokensAreInNoCommandLine: everybody on a machine may read the command lines of
// its processes, and only their owner their environment.
func TestTokensAreInNoCommandLine(t *testing.T) {
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"consul.management", "consul.operator", "nomad.token"} {
		if err := os.WriteFile(filepath.Join(state, "secrets", name), []byte("token-of-"+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script, err := os.ReadFile("agents.sh")
	if err != nil {
		t.Fatal(err)
	}
	for call, want := range map[string]string{
		"nomad job status":      "NOMAD_TOKEN=token-of-nomad.token",
		"consul catalog":        "CONSUL_HTTP_TOKEN=token-of-consul.management",
		"consul_tokens members": "CONSUL_HTTP_TOKEN=token-of-consul.operator",
	} {
		// Of a host, what enters it is left: its command line, and what it passes on.
		cmd := exec.Command("bash", "-euc", string(script)+`on() { printf 'line %s\n' "$*"; env; }; `+call)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "state=" + state, "top=/top", "servers=1", "DIONYSIA_CONSUL=consul", "DIONYSIA_NOMAD=nomad"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", call, err, out)
		}
		line, environment, _ := strings.Cut(string(out), "\n")
		if strings.Contains(line, "token-of") || !strings.HasPrefix(line, "line server ") {
			t.Errorf("%s: the command line is %s", call, line)
		}
		if !strings.Contains(environment, want+"\n") {
			t.Errorf("%s: not passed on: %s", call, want)
		}
	}
}
