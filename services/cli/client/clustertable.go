package client

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/cli/overview"
)

// How many problems of one kind and level are shown.
const (
	whole   = 50
	aGlance = 10
)

// longest is how much of a problem is shown.
const longest = 400

func printStatus(t *table, s *overview.Status, most int) {
	for _, src := range s.Sources {
		t.row(src.Name, src.Address, summaryOf(s, src))
	}
	t.end()
	t.say("")
	t.row("NODE", "ADDRESS", "STATE", "DRIVERS", "ALLOCATIONS", "SERVICES", "HELD/LIMIT (MPX/S)", "STREAMS", "INGEST")
	v := view{s}
	for _, n := range s.Nodes {
		t.row(n.Name, cmp.Or(n.Address, "-"), v.state(n), v.drivers(n), v.allocations(n), v.services(n), v.capacity(n), v.streams(n), v.ingest(n))
	}
	t.end()
	t.say("")
	printProblems(t, s.Problems, most)
}

func printProblems(t *table, all []overview.Problem, most int) {
	if len(all) == 0 {
		t.say("Nothing is wrong.")
		return
	}
	type kind struct{ level, kind string }
	shown := map[kind]int{}
	for _, p := range all {
		k := kind{p.Level, p.Kind}
		if shown[k]++; shown[k] <= most {
			t.row(p.Level, p.Kind, p.Name, cut(p.Text))
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(shown), func(a, b kind) int { return cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.kind, b.kind)) }) {
		if more := shown[k] - most; more > 0 {
			t.row(k.level, k.kind, "…", fmt.Sprintf("and %d more of it; -o json has all", more))
		}
	}
}

// cut keeps a text that a check wrote to a few lines of a terminal.
func cut(s string) string {
	if r := []rune(s); len(r) > longest {
		return string(r[:longest]) + "…"
	}
	return s
}

// summaryOf is a source in a line.
func summaryOf(s *overview.Status, src overview.Source) string {
	switch {
	case src.Off:
		return "not used"
	case !src.Answered:
		return unknown + " could not be asked, see below"
	}
	switch src.Name {
	case overview.Nomad:
		return nomadSummary(s)
	case overview.Consul:
		nodes, passing, services := 0, 0, 0
		for _, n := range s.Nodes {
			if n.Consul == nil {
				continue
			}
			nodes++
			services += len(n.Consul.Services)
			for _, i := range n.Consul.Services {
				if i.Passing {
					passing++
				}
			}
		}
		return fmt.Sprintf("%s, %d of %s pass", count(nodes, "node"), passing, count(services, "checked service"))
	}
	workers := 0
	for _, n := range s.Nodes {
		workers += len(n.Workers)
	}
	return count(workers, "worker") + ", " + streamSummary(s)
}

func nomadSummary(s *overview.Status) string {
	nodes, running, desired, known := 0, 0, 0, s.Jobs != nil
	for _, n := range s.Nodes {
		if n.Nomad != nil {
			nodes++
		}
	}
	for _, j := range s.Jobs {
		running += j.Running
		desired += j.Desired
	}
	if !known {
		return count(nodes, "node") + ", " + unknown + " allocations"
	}
	return fmt.Sprintf("%s, %s, %d of %s running", count(nodes, "node"), count(len(s.Jobs), "job"), running, count(desired, "allocation"))
}

func streamSummary(s *overview.Status) string {
	if s.Streams == nil {
		return unknown + " streams"
	}
	states := map[wire.StreamState]int{}
	for _, st := range s.Streams {
		states[st.State]++
	}
	text := count(len(s.Streams), "stream")
	for i, state := range slices.Sorted(maps.Keys(states)) {
		text += map[bool]string{true: ": ", false: ", "}[i == 0] + fmt.Sprintf("%d %s", states[state], state)
	}
	return text
}

// view renders cells. Where a source does not know of a node the cell is a -;
// where the source could not be asked, a ?.
type view struct{ s *overview.Status }

func (v view) without(source string) string {
	if src := v.s.Source(source); src.Off || src.Answered {
		return "-"
	}
	return unknown
}

func (v view) state(n overview.Node) string {
	switch {
	case n.Nomad == nil:
		return v.without(overview.Nomad)
	case n.Nomad.Drain:
		return n.Nomad.Status + ", drains"
	case !n.Nomad.Eligible:
		return n.Nomad.Status + ", ineligible"
	}
	return n.Nomad.Status
}

func (v view) drivers(n overview.Node) string {
	if n.Nomad == nil {
		return v.without(overview.Nomad)
	}
	var names []string
	for _, d := range n.Nomad.Drivers {
		if d.Healthy {
			names = append(names, d.Name)
		} else {
			names = append(names, d.Name+" (unhealthy)")
		}
	}
	return cmp.Or(strings.Join(names, ","), "-")
}

func (v view) allocations(n overview.Node) string {
	switch {
	case n.Nomad == nil:
		return v.without(overview.Nomad)
	case n.Nomad.Allocations == nil:
		return unknown
	}
	running, desired := map[string]int{}, map[string]int{}
	for _, a := range n.Nomad.Allocations {
		desired[a.Job]++
		if a.Status == "running" {
			running[a.Job]++
		}
	}
	var jobs []string
	for _, j := range slices.Sorted(maps.Keys(desired)) {
		jobs = append(jobs, fmt.Sprintf("%s %d/%d", j, running[j], desired[j]))
	}
	return cmp.Or(strings.Join(jobs, ", "), "-")
}

func (v view) services(n overview.Node) string {
	switch {
	case n.Consul == nil:
		return v.without(overview.Consul)
	case len(n.Consul.Services) == 0:
		return "-"
	}
	var failing []string
	for _, s := range n.Consul.Services {
		if !s.Passing {
			failing = append(failing, s.Name)
		}
	}
	text := fmt.Sprintf("%d/%d", len(n.Consul.Services)-len(failing), len(n.Consul.Services))
	if len(failing) > 0 {
		text += ", not " + strings.Join(slices.Compact(failing), ", ")
	}
	return text
}

// capacity sums a node's devices by their kind.
func (v view) capacity(n overview.Node) string {
	if len(n.Workers) == 0 {
		return v.without(overview.API)
	}
	type sum struct {
		devices, unlimited int
		held, limit        int64
	}
	kinds := map[string]sum{}
	for _, w := range n.Workers {
		for _, d := range w.Devices {
			if !d.Usable {
				continue
			}
			r, k := own(d), kinds[string(d.Kind)]
			k.devices++
			k.held += r.Held
			if r.Limit == nil {
				k.unlimited++
			} else {
				k.limit += *r.Limit
			}
			kinds[string(d.Kind)] = k
		}
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		k := kinds[name]
		limit := mega(k.limit)
		if k.unlimited > 0 {
			limit = unknown
		}
		if k.devices > 1 {
			name = fmt.Sprintf("%d %ss", k.devices, name)
		}
		parts = append(parts, fmt.Sprintf("%s %s/%s", name, mega(k.held), limit))
	}
	return cmp.Or(strings.Join(parts, ", "), "none usable")
}

func (v view) streams(n overview.Node) string {
	if len(n.Workers) == 0 {
		return v.without(overview.API)
	}
	streams := map[string]bool{}
	for _, w := range n.Workers {
		for _, d := range w.Devices {
			for id := range d.Streams {
				streams[id] = true
			}
		}
	}
	return number(len(streams))
}

// ingestService is what the agent beside each mediamtx registers.
const ingestService = "mediamtx"

func (v view) ingest(n overview.Node) string {
	isIngest := len(n.Ingests) > 0 || n.Consul != nil && slices.ContainsFunc(n.Consul.Services, func(s overview.Service) bool { return s.Name == ingestService })
	switch {
	case v.s.Streams == nil && !v.s.Source(overview.API).Off:
		return unknown
	case !isIngest:
		return "-"
	}
	return number(len(n.Ingests))
}
