package access

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
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

// clientAt begins the description of the token of a host's Nomad client.
const clientAt = "Nomad's client on "

// sharedClient describes the token that older versions gave all of Nomad's clients.
const sharedClient = "Nomad's clients"

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
	policies, err := rules(consul.Policies)
	if err != nil {
		return err
	}
	for _, name := range sorted(policies) {
		want := &api.ACLPolicy{Name: prefix + name, Rules: policies[name]}
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
		"consul.dns":      {Description: "DNS of every agent", TemplatedPolicies: []*api.ACLTemplatedPolicy{{TemplateName: api.ACLTemplatedPolicyDNSName}}},
		keys.NomadServer:  {Description: "Nomad's servers", Policies: links(append(clientPolicies(a.Keys.Servers()...), "nomad-server")...)},
		"consul.operator": {Description: "people", Policies: links("operator")},
	}
	for _, h := range a.Keys.Hosts {
		tokens["consul.agent."+h.Name] = &api.ACLToken{Description: agentOf + h.Name,
			NodeIdentities: []*api.ACLNodeIdentity{{NodeName: h.Name, Datacenter: a.Keys.Datacenter}}}
		if !h.Server {
			tokens[keys.NomadClient(h.Name)] = &api.ACLToken{Description: a.clientOf(h.Name), Policies: links(clientPolicies(h)...)}
		}
	}
	// Hosts of an older cluster use it until they have their own.
	if a.sharedLeft() {
		tokens[keys.SharedNomadClient] = &api.ACLToken{Description: sharedClient, Policies: links(clientPolicies(a.Keys.Hosts...)...)}
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

// clientPolicies are those of a Nomad client that runs on each of the hosts: it may
// write their roles' services, and no other's. Of a role that this program does not
// know it may write none.
func clientPolicies(hosts ...keys.Host) []string {
	list := []string{"nomad-client"}
	for _, role := range keys.Roles() {
		if slices.ContainsFunc(hosts, func(h keys.Host) bool { return slices.Contains(h.Roles, role) }) {
			list = append(list, "nomad-client-"+role)
		}
	}
	return list
}

// clientOf describes the token of a host's Nomad client. Several datacenters may
// share one Consul's tokens.
func (a *applier) clientOf(host string) string { return clientAt + host + " in " + a.Keys.Datacenter }

// tokensOfNoHost takes the tokens away from agents whose hosts are no longer in
// the cluster, and the one that all of Nomad's clients had once its file is gone.
func (a *applier) tokensOfNoHost(ctx context.Context) error {
	list, _, err := a.consul.ACL().TokenList(a.read(ctx))
	if err != nil {
		return fmt.Errorf("listing Consul's tokens: %w", err)
	}
	for _, t := range list {
		name := a.ofNoHost(t)
		if name == "" {
			continue
		}
		if _, err := a.consul.ACL().TokenDelete(t.AccessorID, a.write(ctx)); err != nil {
			return fmt.Errorf("taking the token %s away: %w", name, err)
		}
		a.Removed = append(a.Removed, "Consul token "+name)
	}
	return nil
}

// ofNoHost is the name of a token's secret if init made it for what the cluster no
// longer has; otherwise it is empty.
func (a *applier) ofNoHost(t *api.ACLTokenListEntry) string {
	if name, ok := strings.CutPrefix(t.Description, agentOf); ok {
		if len(t.NodeIdentities) == 1 && t.NodeIdentities[0].NodeName == name && t.NodeIdentities[0].Datacenter == a.Keys.Datacenter && a.host(name) == nil {
			return "consul.agent." + name
		}
		return ""
	}
	if !slices.ContainsFunc(t.Policies, func(l *api.ACLLink) bool { return l.Name == prefix+"nomad-client" }) {
		return ""
	}
	if t.Description == sharedClient && !a.sharedLeft() {
		return keys.SharedNomadClient
	}
	name := strings.TrimSuffix(strings.TrimPrefix(t.Description, clientAt), " in "+a.Keys.Datacenter)
	if h := a.host(name); t.Description == a.clientOf(name) && (h == nil || h.Server) {
		return keys.NomadClient(name)
	}
	return ""
}

// sharedLeft says that hosts may still use the token of all of Nomad's clients: its
// file is there.
func (a *applier) sharedLeft() bool {
	_, err := os.Stat(filepath.Join(a.Keys.Dir, keys.SharedNomadClient))
	return !errors.Is(err, fs.ErrNotExist)
}

// host returns the cluster's host of that name, nil if it has none.
func (a *applier) host(name string) *keys.Host {
	i := slices.IndexFunc(a.Keys.Hosts, func(h keys.Host) bool { return h.Name == name })
	if i < 0 {
		return nil
	}
	return &a.Keys.Hosts[i]
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
