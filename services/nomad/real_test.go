package nomad

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// What a real Nomad says when its node becomes ineligible, drains, and when it is
// killed and begins anew.
func TestRealNomad(t *testing.T) {
	n := testkit.StartNomad(t)
	c, err := NewClient(Options{Addr: n.Addr})
	if err != nil {
		t.Fatal(err)
	}
	f := newFollower(c, hclog.NewNullLogger(), timing{relist: never, gap: 10 * time.Millisecond, retryMin: 50 * time.Millisecond, retryMax: time.Second})
	f.Start(t.Context())
	t.Cleanup(func() { f.Stop(context.Background()) })
	id := only(t, c)
	eventually(t, "the node", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.known[id] != nil })

	if _, err := c.API().Nodes().ToggleEligibility(id, false, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that it is ineligible", func() bool { return f.Draining(id) != "" })
	if _, err := c.API().Nodes().ToggleEligibility(id, true, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that it is eligible", func() bool { return f.Draining(id) == "" })
	if _, err := c.API().Nodes().UpdateDrain(id, &api.DrainSpec{Deadline: time.Minute}, false, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that it drains, or has drained", func() bool { return f.Draining(id) != "" })

	n.Kill()
	n.Start()
	id = only(t, c)
	eventually(t, "the next cluster's node", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.known[id] != nil && len(f.known) == 1 })
}

// only is the id of the one node there is.
func only(t *testing.T, c *Client) string {
	t.Helper()
	list, err := c.nodes(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("nodes %v, error %v", list, err)
	}
	return list[0].ID
}
