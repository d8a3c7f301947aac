package client

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

// ClusterInitCmd is `dionysia cluster init`.
type ClusterInitCmd struct {
	Dir        string   `arg:"" type:"path" help:"Folder for the keys, on a machine that you trust. Keep a copy: it is all that is secret of the cluster."`
	Host       []string `sep:"none" placeholder:"NAME=IP[,server][,ROLE…]" help:"A host to add, or to change: then all of it is said anew. May be given several times. Roles: redis, api, ingest, worker, router, edge."`
	Remove     []string `sep:"none" placeholder:"NAME" help:"A host that is no more."`
	Datacenter string   `placeholder:"NAME" help:"Consul's and Nomad's datacenter (dc1)."`
	Region     string   `placeholder:"NAME" help:"Nomad's region (global)."`
	HTTPS      *bool    `negatable:"" help:"The agents' HTTP is served on the hosts' addresses too, over TLS (Consul :8501, Nomad :4646); otherwise on loopback only."`
	Etc        string   `placeholder:"DIR" help:"Where consul.d and nomad.d will lie on the hosts (/etc)."`
	Days       int      `default:"365" help:"Days that a new certificate is good, 1 to 3650 (${default})."`
	Renew      bool     `help:"Make every certificate anew, for the same keys."`
}

// Help explains what it does.
func (ClusterInitCmd) Help() string {
	return `It makes keys, certificates and tokens, and for each host the files that go to its /etc/consul.d and /etc/nomad.d. Run it again for more hosts, or after a run that was cut off: it adds what is missing, and never writes over a key. Then bring hosts/NAME to each host, and run ` + "`dionysia cluster bootstrap`" + `.

  dionysia cluster init keys --host s1=10.0.0.1,server,redis,api --host w1=10.0.0.4,worker,router`
}

// Validate implements kong's validator: 0 is not "the default" for a person.
func (cmd *ClusterInitCmd) Validate() error {
	if cmd.Days == 0 {
		return errors.New("--days: 0 is not from 1 to 3650")
	}
	return nil
}

// Run makes the keys and says what it made.
func (cmd *ClusterInitCmd) Run(ctx *Context) error {
	o := keys.Options{
		Datacenter: cmd.Datacenter, Region: cmd.Region, Etc: cmd.Etc, HTTPS: cmd.HTTPS, Remove: cmd.Remove,
		Days: cmd.Days, Renew: cmd.Renew, Now: time.Now(),
	}
	for _, s := range cmd.Host {
		h, err := keys.ParseHost(s)
		if err != nil {
			return fmt.Errorf("nothing was made: %w", err)
		}
		o.Hosts = append(o.Hosts, h)
	}
	r, err := keys.Init(cmd.Dir, o)
	if err != nil {
		return fmt.Errorf("cluster init %s: %w", cmd.Dir, err)
	}
	for _, name := range r.Made {
		_, _ = fmt.Fprintln(ctx.Stdout, "made     ", name)
	}
	for _, name := range r.Changed {
		_, _ = fmt.Fprintln(ctx.Stdout, "changed  ", name)
	}
	for _, note := range r.Notes {
		_, _ = fmt.Fprintln(ctx.Stderr, "dionysia: note:", note)
	}
	_, err = fmt.Fprintf(ctx.Stdout, "%d made, %d changed, %d kept: %s, %s, %s\n", len(r.Made), len(r.Changed), r.Kept,
		r.Cluster.Datacenter, count(len(r.Cluster.Hosts), "host"), count(len(r.Cluster.Servers()), "server"))
	if hosts := touched(r); err == nil && len(hosts) > 0 {
		_, err = fmt.Fprintf(ctx.Stdout, "Next: bring what changed to its host (%s; docs/operations/cluster.md), then `dionysia cluster bootstrap %s`.\n", strings.Join(hosts, ", "), cmd.Dir)
	}
	return err
}

// touched are the folders hosts/NAME in which something was made or changed.
func touched(r *keys.Report) []string {
	var folders []string
	for _, name := range slices.Concat(r.Made, r.Changed) {
		if parts := strings.SplitN(name, "/", 3); parts[0] == "hosts" && len(parts) == 3 {
			folders = append(folders, parts[0]+"/"+parts[1])
		}
	}
	slices.Sort(folders)
	return slices.Compact(folders)
}
