package access_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	nomadapi "github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/cluster/access"
	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

func TestServers(t *testing.T) {
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
	t.Run("two servers more", a.grow)
	t.Run("certificates are renewed", a.renewed)
	t.Run("access is controlled", a.controlled)
	t.Run("a Nomad client writes its roles' services", a.clients)
	t.Run("what Nomad signs is a role's", a.logins)
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
	a.startConsul(t, "s1")
	operator := a.consul(t, 1, a.secret(t, "consul.operator"))
	testkit.Eventually(t, timeout, "tokens", func() error {
		_, _, err := operator.ACL().TokenReadSelf(nil)
		return err
	})
	t.Logf("Consul's tokens are there after %.1f s", time.Since(began).Seconds())
	a.startNomad(t, "s1")
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

// grow adds servers to those that run.
func (a *agents) grow(t *testing.T) {
	a.init(t, keys.Options{}, "s2=IP2,server", "s3=IP3,server")
	if r := a.mustApply(t); !slices.Equal(r.Made, []string{"Consul token consul.agent.s2", "Consul token consul.agent.s3"}) || len(r.Changed) > 0 {
		t.Errorf("made %v, changed %v", r.Made, r.Changed)
	}
	a.startConsul(t, "s2", "s3")
	a.startNomad(t, "s2", "s3")
	consul, nomad := a.consul(t, 1, a.secret(t, "consul.management")), a.nomad(t, 1, a.secret(t, "nomad.token"))
	testkit.Eventually(t, timeout, "three servers of Consul and three of Nomad that vote", func() error {
		voters := map[string]int{}
		ours, err := consul.Operator().RaftGetConfiguration(nil)
		if err != nil {
			return err
		}
		for _, s := range ours.Servers {
			if s.Voter {
				voters["consul"]++
			}
		}
		theirs, err := nomad.Operator().RaftGetConfiguration(nil)
		if err != nil {
			return err
		}
		for _, s := range theirs.Servers {
			if s.Voter {
				voters["nomad"]++
			}
		}
		if voters["consul"] != 3 || voters["nomad"] != 3 {
			return fmt.Errorf("voters: %v", voters)
		}
		return nil
	})
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

// renewed shows that agents take renewed certificates without a restart.
func (a *agents) renewed(t *testing.T) {
	const days = 100
	a.init(t, keys.Options{Renew: true, Days: days})
	for program, port := range map[string]string{"consul": "8501", "nomad": "4646"} {
		a.bring(t, "s2", program)
		if err := a.running[program+" s2"].Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM([]byte(a.secret(t, program+".ca.pem")))
		testkit.Eventually(t, timeout, program+"'s new certificate", func() error {
			conn, err := tls.Dial("tcp", a.net+"2:"+port, &tls.Config{RootCAs: pool})
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			if left := time.Until(conn.ConnectionState().PeerCertificates[0].NotAfter); left > days*24*time.Hour {
				return fmt.Errorf("its certificate is good for %v", left)
			}
			return nil
		})
	}
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
	slices.Sort(r.Removed)
	want := access.Report{Made: []string{"Consul token consul.agent.w2", "Consul token consul.nomad.client.w2"},
		Removed: []string{"Consul token consul.agent.w1", "Consul token consul.nomad.client.w1"},
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

// oneServer returns the keys of a cluster of one server at ip.
func oneServer(t *testing.T, ip string) *keys.Folder {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "keys")
	h, err := keys.ParseHost("s1=" + ip + ",server")
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
	return folder
}

// TestNobodyThere shows that a wait has an end, and says what was waited for.
func TestNobodyThere(t *testing.T) {
	folder := oneServer(t, "127.0.0.1")
	var said []string
	o := access.Options{Keys: folder, Consul: "http://127.0.0.1:1", Nomad: "http://127.0.0.1:1", Timeout: time.Second, Say: func(s string) { said = append(said, s) }}
	_, err := access.Apply(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "waited 1s for Consul at http://127.0.0.1:1") || len(said) != 1 {
		t.Errorf("%v; said %q", err, said)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := access.Apply(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
