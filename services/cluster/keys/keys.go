// Package keys makes and keeps everything that is secret in a cluster, in one
// folder on a machine that its operator trusts:
//
//	cluster.json             what the cluster is: datacenter, hosts, their roles
//	consul.gossip            what encrypts gossip between Consul's agents; nomad.gossip likewise
//	consul.ca.pem .ca.key    the authority for Consul's agents; nomad.ca.… likewise
//	consul.management        tokens' secret ids: all rights in Consul,
//	consul.operator            people's, to look,
//	consul.agent.HOST          a host's Consul agent's,
//	consul.dns                 what every agent answers DNS by,
//	consul.nomad.server        Nomad's servers',
//	consul.nomad.client.HOST   a host's Nomad client's
//	nomad.token              all rights in Nomad
//	cluster.secret           what Dionysia's roles sign with
//	admin.token              of the api
//	redis.password
//	hosts/HOST/consul.d/     what goes to that host's /etc/consul.d: host.hcl and its certificate
//	hosts/HOST/nomad.d/      and to its /etc/nomad.d
//	hosts/HOST/roles         what tools/provision makes of the host
//
// Secrets are made once and never written over. What is made from them (the
// hosts' files) is renewed when the cluster changes.
package keys

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// DefaultDays is how long a certificate is good unless asked otherwise.
const DefaultDays = 365

// maxDays is what an operator may ask for.
const maxDays = 3650

// soon is how long before its end a certificate is spoken of.
const soon = 30 * 24 * time.Hour

// Options are what Init is asked for. What is empty stays as it was, or is the
// default in a new folder.
type Options struct {
	Datacenter string // dc1
	Region     string // Nomad's: global
	Etc        string // folder on the hosts: /etc
	HTTPS      *bool  // false
	Hosts      []Host // to add, or to change
	Remove     []string
	Days       int  // of a new certificate; 0 is DefaultDays
	Renew      bool // certificates are made anew, for the same keys
	Now        time.Time
}

// Report says what Init did, by names in the folder.
type Report struct {
	Made, Changed []string
	Kept          int
	Notes         []string
	Cluster       *Cluster
}

// NomadServer is the secret of all of Nomad's servers for Consul: who has one of
// them has what Consul's server beside it holds.
const NomadServer = "consul.nomad.server"

// NomadClient is the secret of a host's Nomad for Consul, where no server runs.
func NomadClient(host string) string { return "consul.nomad.client." + host }

// SharedNomadClient was the secret of all of Nomad's clients. It is made no more;
// where it is there, hosts may still use it.
const SharedNomadClient = "consul.nomad.client"

// Init makes what is missing in the folder. It may be run again at any time,
// also after a run that was cut off.
//
// What can't be is an error that wraps ErrInput, and nothing is written then. Runs
// at once wait for each other; one that waits too long gives an ErrBusy.
func Init(dir string, o Options) (*Report, error) {
	if o.Days == 0 {
		o.Days = DefaultDays
	}
	if _, _, err := plan(dir, o); err != nil {
		return nil, err
	}
	if err := private(dir); err != nil {
		return nil, err
	}
	unlock, err := lock(dir, lockLimit)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Another run may have changed the cluster meanwhile.
	was, c, err := plan(dir, o)
	if err != nil {
		return nil, err
	}
	f := &folder{dir: dir}
	if err := f.sweep(o.Now); err != nil {
		return nil, err
	}
	description, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := f.put("cluster.json", append(description, '\n')); err != nil {
		return nil, err
	}
	r := &Report{Cluster: c}
	if r.Notes, err = makeAll(f, c, o); err != nil {
		return nil, err
	}
	r.Notes = append(r.Notes, leave(was, c)...)
	r.Made, r.Changed, r.Kept = f.made, f.changed, f.kept
	return r, nil
}

// plan is the cluster in the folder, nil for none, and the one that is asked for.
func plan(dir string, o Options) (was, c *Cluster, err error) {
	if was, err = readCluster(dir); err != nil {
		return nil, nil, err
	}
	if o.Days < 1 || o.Days > maxDays {
		return nil, nil, invalid("days: %d is not from 1 to %d", o.Days, maxDays)
	}
	if was == nil && len(o.Hosts) == 0 {
		return nil, nil, invalid("hosts: none, and there is no cluster in %s yet: name the hosts, as in --host s1=10.0.0.1,server", dir)
	}
	left, err := without(was, o.Remove)
	if err != nil {
		return nil, nil, err
	}
	c, err = merge(left, o)
	if err != nil && was != nil && len(o.Hosts)+len(o.Remove) == 0 && o.Datacenter+o.Region+o.Etc == "" {
		err = damaged(filepath.Join(dir, "cluster.json"), err) // nothing was asked that could be wrong
	}
	if err == nil {
		err = checkLeaving(was, c)
	}
	return was, c, err
}

func without(c *Cluster, names []string) (*Cluster, error) {
	if len(names) == 0 {
		return c, nil
	}
	left := Cluster{}
	if c != nil {
		left = *c
	}
	for _, name := range names {
		i := slices.IndexFunc(left.Hosts, func(h Host) bool { return h.Name == name })
		if i < 0 {
			return nil, invalid("remove: there is no host %s", name)
		}
		left.Hosts = slices.Delete(slices.Clone(left.Hosts), i, i+1)
	}
	return &left, nil
}

// makeAll makes the secrets and the hosts' files.
func makeAll(f *folder, c *Cluster, o Options) (notes []string, err error) {
	s, err := makeSecrets(f)
	if err != nil {
		return nil, err
	}
	issue := &issuer{folder: f, now: o.Now, days: o.Days, renew: o.Renew}
	consul, err := issue.authority("consul")
	if err != nil {
		return nil, err
	}
	nomad, err := issue.authority("nomad")
	if err != nil {
		return nil, err
	}
	for _, h := range c.Hosts {
		end, err := makeHost(issue, consul, nomad, s, part{Cluster: c, Host: h})
		if err != nil {
			return nil, err
		}
		if end.Before(o.Now.Add(soon)) {
			notes = append(notes, fmt.Sprintf("certificates of %s end on %s: run this again with --renew, and bring them there", h.Name, end.Format(time.DateOnly)))
		}
	}
	if roles := c.unrun(); len(roles) > 0 && len(o.Hosts)+len(o.Remove) > 0 {
		notes = append(notes, fmt.Sprintf("no host has these roles, and their jobs find no node until one has, by --host: %s", strings.Join(roles, ", ")))
	}
	for _, name := range f.gone(c.Hosts) {
		notes = append(notes, fmt.Sprintf("hosts/%s, consul.agent.%s and consul.nomad.client.%s are of no host of this cluster; bootstrap takes its tokens away, the files are yours to remove", name, name, name))
	}
	if _, err := os.Stat(filepath.Join(f.dir, SharedNomadClient)); err == nil {
		notes = append(notes, SharedNomadClient+" is of an older version, which gave all of Nomad's clients one token; each has its own now: run bootstrap, bring all hosts their files, restart Nomad there, then remove this file and run bootstrap again")
	}
	return notes, nil
}

// shared are the secrets that hosts' files have.
type shared struct{ consulGossip, nomadGossip, dns, nomadServer string }

func makeSecrets(f *folder) (s shared, err error) {
	for _, w := range []struct {
		name string
		kind kind
		to   *string
	}{
		{"consul.gossip", gossip, &s.consulGossip},
		{"nomad.gossip", gossip, &s.nomadGossip},
		{"consul.dns", token, &s.dns},
		{NomadServer, token, &s.nomadServer},
		{"consul.management", token, nil},
		{"consul.operator", token, nil},
		{"nomad.token", token, nil},
		{"cluster.secret", password, nil},
		{"admin.token", password, nil},
		{"redis.password", password, nil},
	} {
		value, err := f.secret(w.name, w.kind)
		if err != nil {
			return s, err
		}
		if w.to != nil {
			*w.to = value
		}
	}
	return s, nil
}

// makeHost makes what goes to one host; it returns when its certificates end.
func makeHost(issue *issuer, consul, nomad *authority, s shared, p part) (end time.Time, err error) {
	if p.Agent, err = issue.secret("consul.agent."+p.Name, token); err != nil {
		return end, err
	}
	p.DNS, p.Kind = s.dns, "client"
	if p.Server {
		p.Kind, p.NomadsToken = "server", s.nomadServer
	} else if p.NomadsToken, err = issue.secret(NomadClient(p.Name), token); err != nil {
		return end, err
	}
	for _, program := range []struct {
		name, domain, gossip, hcl string
		authority                 *authority
	}{
		{"consul", p.Datacenter + ".consul", s.consulGossip, consulHCL, consul},
		{"nomad", p.Region + ".nomad", s.nomadGossip, nomadHCL, nomad},
	} {
		dir := "hosts/" + p.Name + "/" + program.name + ".d/"
		w := wanted{
			cert: dir + "agent.pem", key: dir + "agent-key.pem", name: p.Kind + "." + program.domain,
			dns: []string{p.Kind + "." + program.domain, "localhost"},
			ips: addresses(p.Host),
		}
		until, err := issue.certificate(program.authority, w)
		if err != nil {
			return end, err
		}
		if end.IsZero() || until.Before(end) {
			end = until
		}
		p.Encrypt = program.gossip
		hcl, err := render("host.hcl", program.hcl, p)
		if err != nil {
			return end, err
		}
		if err := errors.Join(issue.put(dir+"ca.pem", program.authority.pem), issue.put(dir+"host.hcl", hcl)); err != nil {
			return end, err
		}
	}
	roles := p.Roles
	if p.Server {
		roles = append([]string{"server"}, roles...)
	}
	return end, issue.put("hosts/"+p.Name+"/roles", []byte(strings.Join(roles, " ")+"\n"))
}

// addresses are what a host's certificates are for: itself, and as others reach
// it.
func addresses(h Host) []net.IP {
	loopback := net.IPv4(127, 0, 0, 1)
	if ip := net.IP(h.IP.AsSlice()); !ip.Equal(loopback) {
		return []net.IP{loopback, ip}
	}
	return []net.IP{loopback}
}

// readCluster returns nil when the folder holds none.
func readCluster(dir string) (*Cluster, error) {
	path := filepath.Join(dir, "cluster.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c Cluster
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, damaged(path, whereIn(b, err))
	}
	if c.Datacenter == "" || c.Region == "" || c.Etc == "" || len(c.Hosts) == 0 {
		return nil, damaged(path, errors.New("it lacks a datacenter, a region, the folder etc or hosts"))
	}
	return &c, nil
}

// damaged says what to do about a cluster.json that Init can't have written.
func damaged(path string, err error) error {
	dir := filepath.Dir(path)
	return fmt.Errorf("%s is damaged: %w. Nothing was written. Bring it back from your copy of the folder; without one, move it away and run `dionysia cluster init %s` "+
		"with the datacenter, the region and every host as they were: the keys in the folder stay", path, err, dir)
}

// whereIn says in which line of b it can't be read.
func whereIn(b []byte, err error) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return errors.New("it is empty")
	}
	offset := int64(-1)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset, err = kind.Offset, fmt.Errorf("%s is a %s", kind.Field, kind.Value)
	}
	if offset < 0 || offset > int64(len(b)) {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+bytes.Count(b[:offset], []byte("\n")), err)
}

// Folder is one that Init has made.
type Folder struct {
	Dir string
	Cluster
}

// Open reads a folder that Init has made.
func Open(dir string) (*Folder, error) {
	c, err := readCluster(dir)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, invalid("%s has no cluster.json: `dionysia cluster init %s --host …` makes it", dir, dir)
	}
	if err := c.check(); err != nil {
		return nil, damaged(filepath.Join(dir, "cluster.json"), err)
	}
	return &Folder{Dir: dir, Cluster: *c}, nil
}

// Secret returns the secret in the file of that name.
func (f *Folder) Secret(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(f.Dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%s has no %s: `dionysia cluster init %s` makes what is missing", f.Dir, name, f.Dir)
	}
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("%s is empty", filepath.Join(f.Dir, name))
	}
	return s, nil
}
