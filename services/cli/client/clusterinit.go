package client

import (
	"fmt"
	"time"

	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

// ClusterInitCmd is `dionysia cluster init`.
type ClusterInitCmd struct {
	Dir        string   `arg:"" type:"path" help:"Folder for the keys, on a machine that you trust. Keep a copy: it is all that is secret of the cluster."`
	Host       []string `sep:"none" placeholder:"NAME=IP[,server][,ROLE…]" help:"A host to add or to change; may be given several times. Roles: redis, api, ingest, worker, router, edge."`
	Remove     []string `sep:"none" placeholder:"NAME" help:"A host that is no more."`
	Datacenter string   `placeholder:"NAME" help:"Consul's and Nomad's datacenter (dc1)."`
	Region     string   `placeholder:"NAME" help:"Nomad's region (global)."`
	HTTPS      *bool    `negatable:"" help:"The agents' HTTP is served on the hosts' addresses too, over TLS (Consul :8501, Nomad :4646); otherwise on loopback only."`
	Etc        string   `placeholder:"DIR" help:"Where consul.d and nomad.d will lie on the hosts (/etc)."`
	Days       int      `default:"365" help:"Days that a new certificate is good (${default})."`
	Renew      bool     `help:"Make every certificate anew, for the same keys."`
}

// Help explains what it does.
func (ClusterInitCmd) Help() string {
	return `It makes keys, certificates and tokens, and for each host the files that go to its /etc/consul.d and /etc/nomad.d. Run it again for more hosts, or after a run that was cut off: it adds what is missing, and never writes over a key. Then bring hosts/NAME to each host, and run ` + "`dionysia cluster bootstrap`" + `.

  dionysia cluster init keys --host s1=10.0.0.1,server,redis,api --host w1=10.0.0.4,worker,router`
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
	return err
}
