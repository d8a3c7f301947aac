package client

import (
	"fmt"
	"time"

	"github.com/dionysia-dev/dionysia/services/cluster/access"
	"github.com/dionysia-dev/dionysia/services/cluster/keys"
)

// ClusterBootstrapCmd is `dionysia cluster bootstrap`.
type ClusterBootstrapCmd struct {
	Dir     string        `arg:"" type:"path" help:"The folder that dionysia cluster init made."`
	Consul  string        `placeholder:"URL" help:"Consul's HTTP, best a server's: CONSUL_HTTP_ADDR, else a server's HTTPS if the cluster has it, else http://127.0.0.1:8500."`
	Nomad   string        `placeholder:"URL" help:"Nomad's HTTP: NOMAD_ADDR, else a server's HTTPS if the cluster has it, else http://127.0.0.1:4646."`
	JWKSURL string        `name:"jwks-url" placeholder:"URL" help:"Where Consul's servers fetch Nomad's public keys; a Nomad server on their own host unless given."`
	Timeout time.Duration `default:"2m" help:"How long Consul, and then Nomad, may take to have a leader and answer (${default})."`
}

// Help explains what it does.
func (ClusterBootstrapCmd) Help() string {
	return `It gives Consul and Nomad their management tokens, Consul its policies, roles and tokens, has Consul take Nomad's word for its workloads, gives jobs their policies in Nomad, and puts each job's secrets into Nomad's variables. Run it again after init has added or removed hosts, and with each new version: it writes only what differs.

The agents' HTTP is on loopback unless the cluster has HTTPS: run it on a server, or reach one with ssh -L 8500:127.0.0.1:8500 -L 4646:127.0.0.1:4646. Another host's http:// is refused: the management tokens would go there in clear.`
}

// Run applies access control and says what it did.
func (cmd *ClusterBootstrapCmd) Run(ctx *Context) error {
	folder, err := keys.Open(cmd.Dir)
	if err != nil {
		return err
	}
	r, err := access.Apply(ctx.Ctx, access.Options{
		Keys: folder, Consul: cmd.Consul, Nomad: cmd.Nomad, JWKS: cmd.JWKSURL, Timeout: cmd.Timeout,
		Say: func(s string) { _, _ = fmt.Fprintln(ctx.Stderr, "dionysia:", s) },
	})
	for _, part := range []struct {
		verb string
		list []string
	}{{"made", r.Made}, {"changed", r.Changed}, {"removed", r.Removed}} {
		for _, what := range part.list {
			_, _ = fmt.Fprintf(ctx.Stdout, "%-8s  %s\n", part.verb, what)
		}
	}
	if err != nil {
		return fmt.Errorf("cluster bootstrap (run it again once this is mended): %w", err)
	}
	_, err = fmt.Fprintf(ctx.Stdout, "%d made, %d changed, %d removed, %d as they were\n", len(r.Made), len(r.Changed), len(r.Removed), r.Kept)
	return err
}
