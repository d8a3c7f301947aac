package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/consul/api"

	"github.com/dionysia-dev/dionysia/consul"
	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

// prefix begins the names of our policies and roles.
const prefix = "dionysia-"

// agentOf begins the description of an agent's token.
const agentOf = "agent of "

func (a *applier) read(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}

func (a *applier) write(ctx context.Context) *api.WriteOptions {
	return (&api.WriteOptions{}).WithContext(ctx)
}

func (a *applier) consulLeads(ctx context.Context) error {
	leader, err := a.consul.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	if err == nil && leader == "" {
		err = errors.New("its servers have no leader yet")
	}
	return err
}

// bootstrapConsul gives Consul its management token, unless it knows it.
func (a *applier) bootstrapConsul(ctx context.Context) error {
	token, err := a.Keys.Secret("consul.management")
	if err != nil {
		return final{err}
	}
	_, _, err = a.consul.ACL().TokenReadSelf(a.read(ctx))
	switch {
	case err == nil:
		a.Kept++
		return nil
	case strings.Contains(err.Error(), "ACL support disabled"):
		return final{fmt.Errorf("consul at %s has no access control: consul/server.hcl turns it on", a.Consul)}
	case !unknown(err):
		return err
	}
	_, _, err = a.consul.ACL().BootstrapWithToken(token)
	if err != nil && strings.Contains(err.Error(), "no longer allowed") {
		return final{fmt.Errorf("%w in Consul: put it into %s/consul.management, or let it be set again (consul acl bootstrap says how): %w", ErrOtherToken, a.Keys.Dir, err)}
	}
	a.made(err, "Consul's", "management token")
	return err
}

// unknown says that Consul does not know the token that it was asked with.
func unknown(err error) bool {
	return status(err) == http.StatusForbidden && strings.Contains(err.Error(), "ACL not found")
}

func (a *applier) consulPolicies(ctx context.Context) error {
	rules, err := consul.Policies()
	if err != nil {
		return err
	}
	for _, name := range sorted(rules) {
		want := &api.ACLPolicy{Name: prefix + name, Rules: rules[name]}
		is, _, err := a.consul.ACL().PolicyReadByName(want.Name, a.read(ctx))
		switch {
		case err != nil:
		case is == nil:
			_, _, err = a.consul.ACL().PolicyCreate(want, a.write(ctx))
			a.made(err, "Consul policy", want.Name)
		case is.Rules != want.Rules:
			want.ID, want.Description, want.Datacenters = is.ID, is.Description, is.Datacenters
			_, _, err = a.consul.ACL().PolicyUpdate(want, a.write(ctx))
			a.changed(err, "Consul policy", want.Name)
		default:
			a.Kept++
		}
		if err != nil {
			return fmt.Errorf("consul policy %s: %w", want.Name, err)
		}
	}
	return nil
}

// consulRoles makes the roles that tasks get by Nomad's word, each named like its
// job.
func (a *applier) consulRoles(ctx context.Context) error {
	for _, job := range []string{"worker", "ingest", "edge"} {
		want := &api.ACLRole{Name: prefix + job, Policies: []*api.ACLRolePolicyLink{{Name: prefix + job}}}
		is, _, err := a.consul.ACL().RoleReadByName(want.Name, a.read(ctx))
		switch {
		case err != nil:
		case is == nil:
			_, _, err = a.consul.ACL().RoleCreate(want, a.write(ctx))
			a.made(err, "Consul role", want.Name)
		case !slices.Equal(linked(is.Policies), linked(want.Policies)):
			want.ID, want.Description = is.ID, is.Description
			_, _, err = a.consul.ACL().RoleUpdate(want, a.write(ctx))
			a.changed(err, "Consul role", want.Name)
		default:
			a.Kept++
		}
		if err != nil {
			return fmt.Errorf("consul role %s: %w", want.Name, err)
		}
	}
	return nil
}

// consulTokens makes the agents', Nomad's and people's tokens, with the secret ids
// that the hosts have.
func (a *applier) consulTokens(ctx context.Context) error {
	tokens := map[string]*api.ACLToken{
		"consul.dns":          {Description: "DNS of every agent", TemplatedPolicies: []*api.ACLTemplatedPolicy{{TemplateName: api.ACLTemplatedPolicyDNSName}}},
		"consul.nomad.server": {Description: "Nomad's servers", Policies: links("nomad-client", "nomad-server")},
		"consul.nomad.client": {Description: "Nomad's clients", Policies: links("nomad-client")},
		"consul.operator":     {Description: "people", Policies: links("operator")},
	}
	for _, h := range a.Keys.Hosts {
		tokens["consul.agent."+h.Name] = &api.ACLToken{Description: agentOf + h.Name,
			NodeIdentities: []*api.ACLNodeIdentity{{NodeName: h.Name, Datacenter: a.Keys.Datacenter}}}
	}
	for _, name := range sorted(tokens) {
		if err := a.consulToken(ctx, name, tokens[name]); err != nil {
			return fmt.Errorf("consul token %s: %w", name, err)
		}
	}
	return a.tokensOfNoHost(ctx)
}

func (a *applier) consulToken(ctx context.Context, name string, want *api.ACLToken) (err error) {
	if want.SecretID, err = a.Keys.Secret(name); err != nil {
		return err
	}
	self := a.read(ctx)
	self.Token = want.SecretID
	is, _, err := a.consul.ACL().TokenReadSelf(self)
	switch {
	case err != nil && unknown(err):
		_, _, err = a.consul.ACL().TokenCreate(want, a.write(ctx))
		a.made(err, "Consul token", name)
	case err != nil:
	case !sameRights(is, want):
		want.AccessorID = is.AccessorID
		_, _, err = a.consul.ACL().TokenUpdate(want, a.write(ctx))
		a.changed(err, "Consul token", name)
	default:
		a.Kept++
	}
	return err
}

// tokensOfNoHost takes the tokens away from agents whose hosts are no longer in
// the cluster.
func (a *applier) tokensOfNoHost(ctx context.Context) error {
	list, _, err := a.consul.ACL().TokenList(a.read(ctx))
	if err != nil {
		return fmt.Errorf("listing Consul's tokens: %w", err)
	}
	for _, t := range list {
		name, ok := strings.CutPrefix(t.Description, agentOf)
		if !ok || len(t.NodeIdentities) != 1 || t.NodeIdentities[0].NodeName != name || t.NodeIdentities[0].Datacenter != a.Keys.Datacenter ||
			slices.ContainsFunc(a.Keys.Hosts, func(h keys.Host) bool { return h.Name == name }) {
			continue
		}
		if _, err := a.consul.ACL().TokenDelete(t.AccessorID, a.write(ctx)); err != nil {
			return fmt.Errorf("taking the token of %s away: %w", name, err)
		}
		a.Removed = append(a.Removed, "Consul token consul.agent."+name)
	}
	return nil
}

// sameRights compares what ours grant.
func sameRights(is, want *api.ACLToken) bool {
	return is.Description == want.Description && slices.Equal(rights(is), rights(want))
}

func rights(t *api.ACLToken) []string {
	list := linked(t.Policies)
	for _, n := range t.NodeIdentities {
		list = append(list, "node "+n.NodeName+" "+n.Datacenter)
	}
	for _, p := range t.TemplatedPolicies {
		list = append(list, "template "+p.TemplateName)
	}
	for _, r := range t.Roles {
		list = append(list, "role "+r.Name)
	}
	for _, s := range t.ServiceIdentities {
		list = append(list, "service "+s.ServiceName)
	}
	slices.Sort(list)
	return list
}

func links(policies ...string) (list []*api.ACLLink) {
	for _, p := range policies {
		list = append(list, &api.ACLLink{Name: prefix + p})
	}
	return list
}

func linked(list []*api.ACLLink) (names []string) {
	for _, l := range list {
		names = append(names, "policy "+l.Name)
	}
	slices.Sort(names)
	return names
}

func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
