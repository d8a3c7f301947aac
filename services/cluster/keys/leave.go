package keys

import (
	"fmt"
	"slices"
	"strings"
)

// leaving are the servers of was, nil for none, that are no servers of c.
func leaving(was, c *Cluster) []string {
	var names []string
	if was == nil {
		return names
	}
	for _, s := range was.Servers() {
		if !slices.ContainsFunc(c.Servers(), func(h Host) bool { return h.Name == s.Name }) {
			names = append(names, s.Name)
		}
	}
	return names
}

// checkLeaving refuses a cluster of which no server stays: what Consul and Nomad know
// is their servers', and new ones that look for each other alone would begin anew.
func checkLeaving(was, c *Cluster) error {
	names := leaving(was, c)
	if was == nil || len(names) < len(was.Servers()) {
		return nil
	}
	return invalid("hosts: no server that is there now would stay (%s), and what Consul and Nomad know is theirs: name the new servers beside one of them, "+
		"and remove that one when the others have joined; where nothing runs yet, begin in another folder", strings.Join(names, ", "))
}

// leave says how the servers that are asked to be none any more go without taking the
// majority along that Consul and Nomad need to write anything. The order matters: a
// Nomad server that is stopped stays a voter until the others can agree that it is
// none, and with two left they never can.
func leave(was, c *Cluster) []string {
	names := leaving(was, c)
	if len(names) == 0 {
		return nil
	}
	who := fmt.Sprintf("server %s has", names[0])
	if len(names) > 1 {
		who = fmt.Sprintf("servers %s have", strings.Join(names, ", "))
	}
	return []string{who + " to leave Consul and Nomad, before bootstrap takes tokens away, and one at a time: without a majority of their servers neither writes anything. " +
		"For each: `nomad operator raft remove-peer -peer-id=ID`, with its ID of `nomad operator raft list-peers`, and at once `systemctl stop nomad` on it; " +
		"then on it `consul leave`. Go on when `nomad operator raft list-peers` and `consul operator raft list-peers` have a leader and not this one as a voter (docs/operations/cluster.md)"}
}
