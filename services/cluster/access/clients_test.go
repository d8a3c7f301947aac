package access_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	consulapi "github.com/hashicorp/consul/api"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

// registers says whether a token may register a service and take it out again.
func (a *agents) registers(t *testing.T, token, service string) bool {
	t.Helper()
	agent := a.consul(t, 1, token).Agent()
	if err := agent.ServiceRegister(&consulapi.AgentServiceRegistration{ID: "test-" + service, Name: service, Port: 1}); err != nil {
		return false
	}
	if err := agent.ServiceDeregister("test-" + service); err != nil {
		t.Errorf("%s was registered and can't be taken out: %v", service, err)
	}
	return true
}

// mayWrite waits until a token may write these services and no other: a server that
// does not lead hears of a change a moment after the one that made it.
func (a *agents) mayWrite(t *testing.T, name, token string, want ...string) {
	t.Helper()
	testkit.Eventually(t, timeout, "the rights of "+name, func() error {
		var got []string
		for _, service := range []string{"api", "edge", "ingest", "mediamtx", "nomad", "nomad-client", "origin", "redis-live", "redis-state", "router", "worker"} {
			if a.registers(t, token, service) {
				got = append(got, service)
			}
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("it may write %v, want %v", got, want)
		}
		return nil
	})
}

// clients shows that a Nomad client may write its own host's services alone, what
// becomes of its token with the host, and of the one that all had once.
func (a *agents) clients(t *testing.T) {
	a.init(t, keys.Options{}, "w2=IP5,redis,router")
	w2, shared := keys.NomadClient("w2"), filepath.Join(a.dir, keys.SharedNomadClient)
	write(t, shared, "00000000-0000-4000-8000-000000000001")
	r := a.mustApply(t)
	if !slices.Equal(r.Made, []string{"Consul token consul.agent.w2", "Consul token " + keys.SharedNomadClient, "Consul token " + w2}) || len(r.Changed)+len(r.Removed) > 0 {
		t.Errorf("made %v, changed %v, removed %v", r.Made, r.Changed, r.Removed)
	}
	tokens := map[string]string{}
	for secret, want := range map[string][]string{
		keys.NomadClient("w1"): {"nomad-client", "worker"},
		w2:                     {"nomad-client", "redis-live", "redis-state", "router"},
		keys.SharedNomadClient: {"nomad-client", "redis-live", "redis-state", "router", "worker"},
		keys.NomadServer:       {"nomad", "nomad-client"},
		"consul.operator":      nil,
	} {
		tokens[secret] = a.secret(t, secret)
		a.mayWrite(t, secret, tokens[secret], want...)
	}
	a.init(t, keys.Options{}, "w2=IP5,edge")
	if r := a.mustApply(t); !slices.Contains(r.Changed, "Consul token "+w2) {
		t.Errorf("another role: changed %v", r.Changed)
	}
	a.mayWrite(t, w2+", another role's", tokens[w2], "edge", "nomad-client")
	if err := os.Remove(shared); err != nil {
		t.Fatal(err)
	}
	a.init(t, keys.Options{Remove: []string{"w2"}})
	r = a.mustApply(t)
	slices.Sort(r.Removed)
	if want := []string{"Consul token consul.agent.w2", "Consul token " + keys.SharedNomadClient, "Consul token " + w2}; !slices.Equal(r.Removed, want) {
		t.Errorf("removed %v, want %v", r.Removed, want)
	}
	a.mayWrite(t, w2+", of a host that is no more", tokens[w2])
	a.mayWrite(t, keys.SharedNomadClient+", which is no more", tokens[keys.SharedNomadClient])
	a.mayWrite(t, keys.NomadClient("w1"), tokens[keys.NomadClient("w1")], "nomad-client", "worker")
}
