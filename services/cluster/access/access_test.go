package access_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
}

// newAgents makes the keys for three servers, with HTTPS.
func newAgents(t *testing.T) *agents {
	t.Helper()
	// Two test binaries at a time have different addresses.
	pid := os.Getpid()
	a := &agents{dir: filepath.Join(t.TempDir(), "keys"), etc: t.TempDir(), net: fmt.Sprintf("127.%d.%d.", 1+pid/250%250, 1+pid%250)}
	a.init(t, keys.Options{Etc: a.etc, HTTPS: new(true)}, "s1=IP1,server", "s2=IP2,server", "s3=IP3,server", "w1=IP4,worker")
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

// start runs a program on the three hosts, by what init has made and this
// repository's configuration; each host's HTTP is on its own address.
func (a *agents) start(t *testing.T, program, flag, own string) {
	t.Helper()
	for i, name := range []string{"s1", "s2", "s3"} {
		ip, dir := fmt.Sprintf("%s%d", a.net, i+1), filepath.Join(a.etc, name, program+".d")
		if err := os.CopyFS(dir, os.DirFS(filepath.Join(a.dir, "hosts", name, program+".d"))); err != nil {
			t.Fatal(err)
		}
		// On one machine the hosts share a file system: each has its own /etc.
		host := filepath.Join(dir, "host.hcl")
		b, err := os.ReadFile(host)
		if err != nil {
			t.Fatal(err)
		}
		write(t, host, strings.ReplaceAll(string(b), a.etc, filepath.Join(a.etc, name)))
		last := filepath.Join(dir, "test.json")
		write(t, last, strings.ReplaceAll(own, "IP", ip))
		args := []string{"agent", "-data-dir=" + filepath.Join(a.etc, name, program)}
		repo := map[string]string{"consul": "consul", "nomad": "nomad/agent"}[program]
		for _, file := range []string{filepath.Join("..", "..", "..", repo, "server.hcl"), host, last} {
			args = append(args, flag+file)
		}
		testkit.StartProcess(t, program+" on "+name, exec.Command(testkit.Part(t, "DIONYSIA_"+strings.ToUpper(program), program), args...))
	}
}

func (a *agents) startConsul(t *testing.T) {
	a.start(t, "consul", "-config-file=", `{"client_addr": "IP", "log_level": "warn"}`)
}

func (a *agents) startNomad(t *testing.T) {
	a.start(t, "nomad", "-config=", `{"addresses": {"http": "IP"}, "consul": {"address": "IP:8500"}, "log_level": "WARN"}`)
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

func TestThreeServers(t *testing.T) {
	for _, name := range []string{"CONSUL_HTTP_ADDR", "CONSUL_HTTP_TOKEN", "CONSUL_CACERT", "NOMAD_ADDR", "NOMAD_TOKEN", "NOMAD_CACERT"} {
		t.Setenv(name, "")
	}
	a := newAgents(t)
	first := a.comeUp(t)
	if len(first.Changed)+len(first.Removed)+first.Kept > 0 {
		t.Errorf("the first changed %v, removed %v, kept %d", first.Changed, first.Removed, first.Kept)
	}
	t.Run("again", func(t *testing.T) {
		before := a.indexes(t)
		r := a.mustApply(t)
		if len(r.Made)+len(r.Changed)+len(r.Removed) > 0 || r.Kept != len(first.Made) {
			t.Errorf("made %v, changed %v, removed %v, kept %d", r.Made, r.Changed, r.Removed, r.Kept)
		}
		if after := a.indexes(t); after != before {
			t.Errorf("something was written:\n%s\n%s", before, after)
		}
	})
	t.Run("all servers are one cluster", a.oneCluster)
	t.Run("access is controlled", a.controlled)
	t.Run("what differs is mended", a.mended)
	t.Run("another's management token", a.others)
}

// comeUp starts Consul, applies, and starts Nomad meanwhile, once its tokens are
// there.
func (a *agents) comeUp(t *testing.T) *access.Report {
	t.Helper()
	began := time.Now()
	done := make(chan *access.Report, 1)
	go func() {
		r, err := a.apply(t)
		if err != nil {
			t.Errorf("applying: %v", err)
		}
		done <- r
	}()
	a.startConsul(t)
	operator := a.consul(t, 1, a.secret(t, "consul.operator"))
	testkit.Eventually(t, timeout, "tokens", func() error {
		_, _, err := operator.ACL().TokenReadSelf(nil)
		return err
	})
	t.Logf("Consul's tokens are there after %.1f s", time.Since(began).Seconds())
	a.startNomad(t)
	r := <-done
	t.Logf("all is there after %.1f s: %v", time.Since(began).Seconds(), r.Made)
	return r
}

// indexes are when Consul's and Nomad's access control was last written.
func (a *agents) indexes(t *testing.T) string {
	t.Helper()
	acl := a.consul(t, 1, a.secret(t, "consul.management")).ACL()
	tokens, _, err := acl.TokenList(nil)
	policies, _, err2 := acl.PolicyList(nil)
	roles, _, err3 := acl.RoleList(nil)
	methods, _, err4 := acl.AuthMethodList(nil)
	rules, _, err5 := acl.BindingRuleList("", nil)
	nomad := a.nomad(t, 1, a.secret(t, "nomad.token"))
	theirs, _, err6 := nomad.ACLPolicies().List(nil)
	variables, _, err7 := nomad.Variables().List(nil)
	if err := errors.Join(err, err2, err3, err4, err5, err6, err7); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal([]any{tokens, policies, roles, methods, rules, theirs, variables})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (a *agents) oneCluster(t *testing.T) {
	for host := 1; host <= 3; host++ {
		peers, err := a.consul(t, host, a.secret(t, "consul.management")).Operator().RaftGetConfiguration(nil)
		if err != nil || len(peers.Servers) != 3 {
			t.Errorf("Consul's servers, asked on %d: %+v, %v", host, peers, err)
		}
		theirs, err := a.nomad(t, host, a.secret(t, "nomad.token")).Operator().RaftGetConfiguration(nil)
		if err != nil || len(theirs.Servers) != 3 {
			t.Errorf("Nomad's servers, asked on %d: %+v, %v", host, theirs, err)
		}
	}
	// Nomad's servers say in Consul that they are there, by the token that they have.
	operator := a.consul(t, 2, a.secret(t, "consul.operator"))
	testkit.Eventually(t, timeout, "Nomad's servers in Consul", func() error {
		list, _, err := operator.Health().Service("nomad", "rpc", true, nil)
		if err == nil && len(list) != 3 {
			err = fmt.Errorf("%d pass", len(list))
		}
		return err
	})
}

func (a *agents) controlled(t *testing.T) {
	if nodes, _, err := a.consul(t, 1, "").Catalog().Nodes(nil); err != nil || len(nodes) > 0 {
		t.Errorf("anonymous sees Consul's nodes %v, %v", nodes, err)
	}
	operator := a.consul(t, 1, a.secret(t, "consul.operator"))
	if nodes, _, err := operator.Catalog().Nodes(nil); err != nil || len(nodes) != 3 {
		t.Errorf("people see Consul's nodes %v, %v", nodes, err)
	}
	if _, _, err := operator.ACL().TokenList(nil); err == nil {
		t.Error("people may list tokens")
	}
	worker := a.consul(t, 1, a.secret(t, "consul.agent.w1"))
	register := func(node string) error {
		_, err := worker.Catalog().Register(&consulapi.CatalogRegistration{Node: node, Address: a.net + "4"}, nil)
		return err
	}
	if err := register("w1"); err != nil {
		t.Errorf("w1's agent can't register its own node: %v", err)
	}
	if err := register("s1"); err == nil {
		t.Error("w1's agent may write another node")
	}
	if _, _, err := a.nomad(t, 1, "").Nodes().List(nil); err == nil {
		t.Error("anonymous sees Nomad's nodes")
	}
	// Consul believes nobody but Nomad.
	if _, _, err := operator.ACL().Login(&consulapi.ACLLoginParams{AuthMethod: "nomad-workloads", BearerToken: "x.y.z"}, nil); err == nil {
		t.Error("a login by a token of nobody")
	}
	items, _, err := a.nomad(t, 2, a.secret(t, "nomad.token")).Variables().GetVariableItems("nomad/jobs/worker", nil)
	if err != nil || len(items) != 2 || items["secret"] != a.secret(t, "cluster.secret") || items["redis_password"] != a.secret(t, "redis.password") {
		t.Errorf("the worker's variables are %v, %v", items, err)
	}
	policy, _, err := a.nomad(t, 1, a.secret(t, "nomad.token")).ACLPolicies().Info("dionysia-api", nil)
	if err != nil || policy.JobACL == nil || policy.JobACL.JobID != "api" {
		t.Errorf("the api's policy is %+v, %v", policy, err)
	}
}

func (a *agents) mended(t *testing.T) {
	consul, nomad := a.consul(t, 1, a.secret(t, "consul.management")).ACL(), a.nomad(t, 1, a.secret(t, "nomad.token"))
	// As an older version had it.
	old, _, err := consul.PolicyReadByName("dionysia-worker", nil)
	if err != nil {
		t.Fatal(err)
	}
	rules := old.Rules
	old.Rules = `service "origin" { policy = "read" }`
	_, _, err = consul.PolicyUpdate(old, nil)
	_, err2 := nomad.ACLPolicies().Upsert(&nomadapi.ACLPolicy{Name: "dionysia-api", Rules: `node { policy = "read" }`}, nil)
	// An operator's own item beside ours, and one of ours changed.
	_, _, err3 := nomad.Variables().Update(&nomadapi.Variable{Path: "nomad/jobs/redis",
		Items: nomadapi.VariableItems{"redis_password": "weak", "own": "kept"}}, nil)
	if err := errors.Join(err, err2, err3); err != nil {
		t.Fatal(err)
	}
	a.init(t, keys.Options{Remove: []string{"w1"}}, "w2=IP5,edge")
	r := a.mustApply(t)
	want := access.Report{Made: []string{"Consul token consul.agent.w2"}, Removed: []string{"Consul token consul.agent.w1"},
		Changed: []string{"Consul policy dionysia-worker", "Nomad policy dionysia-api", "Nomad variables nomad/jobs/redis"}}
	if !slices.Equal(r.Made, want.Made) || !slices.Equal(r.Changed, want.Changed) || !slices.Equal(r.Removed, want.Removed) {
		t.Errorf("made %v, changed %v, removed %v", r.Made, r.Changed, r.Removed)
	}
	if p, _, err := consul.PolicyReadByName("dionysia-worker", nil); err != nil || p.Rules != rules {
		t.Errorf("the policy is %+v, %v", p, err)
	}
	items, _, err := nomad.Variables().GetVariableItems("nomad/jobs/redis", nil)
	if err != nil || items["own"] != "kept" || items["redis_password"] != a.secret(t, "redis.password") {
		t.Errorf("redis' variables are %v, %v", items, err)
	}
}

// others shows that a folder whose tokens these are not changes nothing.
func (a *agents) others(t *testing.T) {
	for _, name := range []string{"consul.management", "nomad.token"} {
		was := a.secret(t, name)
		write(t, filepath.Join(a.dir, name), "00000000-0000-4000-8000-000000000000")
		r, err := a.apply(t)
		if !errors.Is(err, access.ErrOtherToken) || !strings.Contains(err.Error(), name) || len(r.Made)+len(r.Changed) > 0 {
			t.Errorf("another %s: %v; made %v, changed %v", name, err, r.Made, r.Changed)
		}
		write(t, filepath.Join(a.dir, name), was)
	}
}

// TestNobodyThere shows that a wait has an end, and says what was waited for.
func TestNobodyThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	h, err := keys.ParseHost("s1=127.0.0.1,server")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Init(dir, keys.Options{Hosts: []keys.Host{h}, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	folder, err := keys.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	o := access.Options{Keys: folder, Consul: "http://127.0.0.1:1", Nomad: "http://127.0.0.1:1", Timeout: time.Second, Say: func(s string) { said = append(said, s) }}
	_, err = access.Apply(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "waited 1s for Consul at http://127.0.0.1:1") || len(said) != 1 {
		t.Errorf("%v; said %q", err, said)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := access.Apply(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
