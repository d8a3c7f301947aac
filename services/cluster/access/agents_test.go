package access_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	nomadapi "github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/cluster/access"
	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

// timeout is for agents on a machine that does other things too; Consul's and
// Nomad's take some seconds each.
const timeout = 2 * time.Minute

// agents are the Consul and Nomad servers of a cluster, each host an address of
// loopback.
type agents struct {
	dir string // of the keys
	etc string // each host's /etc is a folder in it
	net string // the first three numbers of the addresses

	whole   *testing.T                  // the agents run until its end
	running map[string]*testkit.Process // by program and host, "consul s1"
}

// newAgents makes the keys for one server, with HTTPS.
func newAgents(t *testing.T) *agents {
	t.Helper()
	// Two test binaries at a time have different addresses.
	pid := os.Getpid()
	a := &agents{dir: filepath.Join(t.TempDir(), "keys"), etc: t.TempDir(), net: fmt.Sprintf("127.%d.%d.", 1+pid/250%250, 1+pid%250),
		whole: t, running: map[string]*testkit.Process{}}
	a.init(t, keys.Options{Etc: a.etc, HTTPS: new(true)}, "s1=IP1,server", "w1=IP4,worker")
	return a
}

func (a *agents) init(t *testing.T, o keys.Options, hosts ...string) {
	t.Helper()
	for _, s := range hosts {
		h, err := keys.ParseHost(strings.ReplaceAll(s, "IP", a.net))
		if err != nil {
			t.Fatal(err)
		}
		o.Hosts = append(o.Hosts, h)
	}
	o.Now = time.Now()
	if _, err := keys.Init(a.dir, o); err != nil {
		t.Fatal(err)
	}
}

// bring brings a host its files. On one machine the hosts share a file system:
// each has its own /etc, and its HTTP on its own address.
func (a *agents) bring(t *testing.T, host, program string) (dir string) {
	t.Helper()
	dir = filepath.Join(a.etc, host, program+".d")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca.pem", "agent.pem", "agent-key.pem", "host.hcl"} {
		b, err := os.ReadFile(filepath.Join(a.dir, "hosts", host, program+".d", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), strings.ReplaceAll(string(b), a.etc, filepath.Join(a.etc, host)))
	}
	return dir
}

// start runs a program on hosts, by what init has made and this repository's
// configuration.
func (a *agents) start(t *testing.T, program, flag, repo, own string, hosts ...string) {
	t.Helper()
	for _, host := range hosts {
		dir := a.bring(t, host, program)
		last := filepath.Join(dir, "test.json")
		write(t, last, strings.ReplaceAll(own, "IP", a.net+host[1:]))
		args := []string{"agent", "-data-dir=" + filepath.Join(a.etc, host, program)}
		for _, file := range []string{filepath.Join("..", "..", "..", repo, "server.hcl"), filepath.Join(dir, "host.hcl"), last} {
			args = append(args, flag+file)
		}
		a.running[program+" "+host] = testkit.StartProcess(a.whole, program+" on "+host, exec.Command(testkit.Part(t, "DIONYSIA_"+strings.ToUpper(program), program), args...))
	}
}

func (a *agents) startConsul(t *testing.T, hosts ...string) {
	t.Helper()
	a.start(t, "consul", "-config-file=", "consul", `{"client_addr": "IP", "log_level": "warn"}`, hosts...)
}

func (a *agents) startNomad(t *testing.T, hosts ...string) {
	t.Helper()
	a.start(t, "nomad", "-config=", "nomad/agent", `{"addresses": {"http": "IP"}, "consul": {"address": "IP:8500"}, "log_level": "WARN"}`, hosts...)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// apply uses the HTTPS addresses that it finds in the folder.
func (a *agents) apply(t *testing.T) (*access.Report, error) {
	t.Helper()
	folder, err := keys.Open(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	return access.Apply(t.Context(), access.Options{Keys: folder, JWKS: "https://" + a.net + "1:4646/.well-known/jwks.json",
		Timeout: timeout, Say: func(s string) { t.Log(s) }})
}

func (a *agents) mustApply(t *testing.T) *access.Report {
	t.Helper()
	r, err := a.apply(t)
	if err != nil {
		t.Fatalf("%v; by then it had made %v", err, r.Made)
	}
	return r
}

func (a *agents) secret(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (a *agents) consul(t *testing.T, host int, token string) *consulapi.Client {
	t.Helper()
	c, err := consulapi.NewClient(&consulapi.Config{Address: fmt.Sprintf("https://%s%d:8501", a.net, host), Token: token,
		TLSConfig: consulapi.TLSConfig{CAFile: filepath.Join(a.dir, "consul.ca.pem")}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a *agents) nomad(t *testing.T, host int, token string) *nomadapi.Client {
	t.Helper()
	c, err := nomadapi.NewClient(&nomadapi.Config{Address: fmt.Sprintf("https://%s%d:4646", a.net, host), SecretID: token,
		TLSConfig: &nomadapi.TLSConfig{CACert: filepath.Join(a.dir, "nomad.ca.pem")}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
