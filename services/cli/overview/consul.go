package overview

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	consul "github.com/hashicorp/consul/api"
)

// errNothing is what Consul's access control makes of a list for a token that may
// read none of it.
var errNothing = errors.New(`it shows nothing, not even its own node: a token that may read is needed (CONSUL_HTTP_TOKEN or --consul-token-file), with the policy consul/policies/operator.hcl`)

func readConsul(ctx context.Context, c *consul.Client) (f ConsulFacts) {
	q := (&consul.QueryOptions{AllowStale: true}).WithContext(ctx)
	nodes, meta, err := c.Catalog().Nodes(q)
	if err != nil {
		f.Err = consulErr("listing the nodes", err)
		return f
	}
	f.Nodes, f.Leader, f.Filtered = nodes, meta.KnownLeader, meta.ResultsFilteredByACLs
	if len(nodes) == 0 {
		f.Err = errNothing
		return f
	}
	checks, meta, err := c.Health().State(consul.HealthAny, q)
	if err != nil {
		f.Err = consulErr("listing the checks", err)
		return f
	}
	f.Checks, f.Filtered = checks, f.Filtered || meta.ResultsFilteredByACLs
	return f
}

func consulErr(what string, err error) error {
	var answered consul.StatusError
	if errors.As(err, &answered) && answered.Code == http.StatusForbidden {
		return fmt.Errorf("%s: the token may not (CONSUL_HTTP_TOKEN or --consul-token-file): %s", what, answered.Body)
	}
	return fmt.Errorf("%s: %w", what, err)
}
