package client

import (
	"fmt"

	"github.com/dionysia-dev/dionysia/services/nomad"
)

// ClusterStatusCmd is `dionysia cluster status`.
type ClusterStatusCmd struct {
	Flags
	NomadAddr string `name:"nomad-addr" placeholder:"URL" help:"URL of Nomad's HTTP API; NOMAD_ADDR, else http://127.0.0.1:4646, unless given."`
}

// Run shows the nodes.
func (cmd *ClusterStatusCmd) Run(ctx *Context) error {
	n, err := nomad.NewClient(nomad.Options{Addr: cmd.NomadAddr})
	if err != nil {
		return err
	}
	q, err := n.Query(ctx.Ctx)
	if err != nil {
		return err
	}
	nodes, _, err := n.API().Nodes().List(q)
	if err != nil {
		return fmt.Errorf("listing Nomad's nodes: %w", err)
	}
	c := &session{Context: ctx, json: cmd.Output == "json"}
	return c.print(nodes, func(t *table) {
		t.row("NODE", "ADDRESS", "STATUS", "ELIGIBILITY")
		for _, n := range nodes {
			t.row(n.Name, n.Address, n.Status, n.SchedulingEligibility)
		}
	})
}
