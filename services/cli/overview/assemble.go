package overview

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// Assemble joins facts of the moment now.
func Assemble(f Facts, now time.Time) *Status {
	s := &Status{Time: now, Sources: sources(f), Streams: f.API.Streams}
	b := &joined{}
	for _, n := range f.Nomad.Nodes {
		b.nodes = append(b.nodes, &Node{Name: n.Name, Address: n.Address, Nomad: nomadNode(n, f.Nomad)})
	}
	b.addConsul(f.Consul)
	for _, w := range f.API.Workers {
		n := b.ofWorker(w)
		n.Workers = append(n.Workers, w)
	}
	for _, st := range f.API.Streams {
		if st.Session != nil {
			n := b.named(st.Session.Node)
			n.Ingests = append(n.Ingests, st.Stream)
		}
	}
	slices.SortStableFunc(b.nodes, func(a, b *Node) int { return strings.Compare(a.Name, b.Name) })
	s.Nodes = make([]Node, len(b.nodes))
	for i, n := range b.nodes {
		s.Nodes[i] = *n
	}
	if f.Nomad.Jobs != nil {
		s.Jobs = jobs(f.Nomad)
	}
	s.Problems = problems(f, s)
	return s
}

func sources(f Facts) []Source {
	source := func(name, address string, off, answered bool, errs ...error) Source {
		s := Source{Name: name, Address: address, Off: off, Answered: !off && answered, Missing: []string{}}
		for _, err := range errs {
			if err != nil {
				s.Missing = append(s.Missing, err.Error())
			}
		}
		return s
	}
	list := []Source{
		source(Nomad, f.Nomad.Address, f.Nomad.Off, f.Nomad.NodesErr == nil, f.Nomad.NodesErr, f.Nomad.AllocsErr, f.Nomad.JobsErr),
		source(Consul, f.Consul.Address, f.Consul.Off, f.Consul.Err == nil, f.Consul.Err),
		source(API, f.API.Address, f.API.Off, f.API.WorkersErr == nil, f.API.WorkersErr, f.API.StreamsErr),
	}
	if f.Consul.Filtered {
		list[1].Missing = append(list[1].Missing, "the token may not read all nodes and services; consul/policies/operator.hcl may")
	}
	return list
}

// joined finds the node that each source means. The same machine has one name in
// Nomad and Consul as docs/operations/cluster.md sets them up; where it has not,
// its address tells.
type joined struct{ nodes []*Node }

// named finds a node, or makes it. Of several registrations of one name in Nomad
// it is one that is ready, if any.
func (b *joined) named(name string) *Node {
	var found *Node
	for _, n := range b.nodes {
		if n.Name == name && (found == nil || (n.Nomad != nil && n.Nomad.Status == nomad.NodeStatusReady)) {
			found = n
		}
	}
	if found == nil {
		found = &Node{Name: name}
		b.nodes = append(b.nodes, found)
	}
	return found
}

// known is whether named would find a node.
func (b *joined) known(name string) bool {
	return slices.ContainsFunc(b.nodes, func(n *Node) bool { return n.Name == name })
}

// at finds the only node at an address that Nomad holds for ready.
func (b *joined) at(address string) *Node {
	var found *Node
	for _, n := range b.nodes {
		if n.Address == address && address != "" && n.Nomad != nil && n.Nomad.Status == nomad.NodeStatusReady {
			if found != nil {
				return nil
			}
			found = n
		}
	}
	return found
}

func (b *joined) addConsul(f ConsulFacts) {
	if f.Err != nil {
		return
	}
	addresses := map[string]string{}
	for _, n := range f.Nodes {
		addresses[n.Node] = n.Address
	}
	for _, c := range consulNodes(f) {
		n := b.at(addresses[c.Name])
		if n == nil || n.Consul != nil || b.known(c.Name) {
			n = b.named(c.Name)
		}
		n.Consul = c
		n.Address = cmp.Or(n.Address, addresses[c.Name])
	}
}

func (b *joined) ofWorker(w wire.Worker) *Node {
	if w.NomadNode != nil {
		for _, n := range b.nodes {
			if n.Nomad != nil && n.Nomad.ID == *w.NomadNode {
				return n
			}
		}
	}
	if b.known(w.ID) {
		return b.named(w.ID)
	}
	n := b.named(w.Host)
	if host, _, err := net.SplitHostPort(w.Origin); err == nil {
		n.Address = cmp.Or(n.Address, host)
	}
	return n
}

func nomadNode(n *nomad.NodeListStub, f NomadFacts) *NomadNode {
	out := &NomadNode{ID: n.ID, Status: n.Status, Eligible: n.SchedulingEligibility == nomad.NodeSchedulingEligible, Drain: n.Drain,
		Datacenter: n.Datacenter, Class: n.NodeClass, Version: n.Version, Description: n.StatusDescription, Drivers: []Driver{}}
	for _, name := range slices.Sorted(maps.Keys(n.Drivers)) {
		if d := n.Drivers[name]; d != nil && d.Detected {
			out.Drivers = append(out.Drivers, Driver{Name: name, Healthy: d.Healthy, Description: d.HealthDescription})
		}
	}
	if f.AllocsErr != nil {
		return out
	}
	out.Allocations = []Allocation{}
	for _, a := range f.Allocs {
		if a.NodeID == n.ID && toRun(a) {
			out.Allocations = append(out.Allocations, allocation(a))
		}
	}
	slices.SortFunc(out.Allocations, func(a, b Allocation) int {
		return cmp.Or(strings.Compare(a.Job, b.Job), strings.Compare(a.Group, b.Group), strings.Compare(a.ID, b.ID))
	})
	return out
}

// toRun says whether an allocation should run: one that has a successor, or a task
// that was to end and has ended, should not.
func toRun(a *nomad.AllocationListStub) bool {
	if a.DesiredStatus != nomad.AllocDesiredStatusRun || a.NextAllocation != "" {
		return false
	}
	forever := a.JobType == nomad.JobTypeService || a.JobType == nomad.JobTypeSystem
	return forever || a.ClientStatus != nomad.AllocClientStatusComplete
}

func allocation(a *nomad.AllocationListStub) Allocation {
	out := Allocation{ID: a.ID, Job: a.JobID, Group: a.TaskGroup, Version: a.JobVersion, Status: a.ClientStatus, Since: time.Unix(0, a.CreateTime).UTC()}
	if a.DeploymentStatus != nil {
		out.Healthy = a.DeploymentStatus.Healthy
	}
	for _, name := range slices.Sorted(maps.Keys(a.TaskStates)) {
		t := a.TaskStates[name]
		out.Restarts += t.Restarts
		if t.State == "running" || (t.State == "dead" && !t.Failed) || len(t.Events) == 0 {
			continue
		}
		out.Last = name + ": " + lastOf(t.Events)
	}
	return out
}

// allocUnhealthy is an event of Nomad's client/allochealth.
const allocUnhealthy = "Alloc Unhealthy"

// lastOf are the last two events that tell something: how a task ended, and what
// comes of it.
func lastOf(events []*nomad.TaskEvent) string {
	var last []string
	for _, e := range slices.Backward(events) {
		switch e.Type {
		case nomad.TaskReceived, nomad.TaskSetup, nomad.TaskNotRestarting, allocUnhealthy:
			continue // the last two follow the error
		}
		if last = append(last, e.DisplayMessage); len(last) == 2 {
			break
		}
	}
	slices.Reverse(last)
	return strings.Join(last, "; ")
}

func jobs(f NomadFacts) []Job {
	list := []Job{}
	for _, j := range f.Jobs {
		if j.Stop || j.Periodic || j.ParameterizedJob || (j.Type != nomad.JobTypeService && j.Type != nomad.JobTypeSystem) {
			continue
		}
		out := Job{Name: j.ID, Type: j.Type, Unplaced: queued(j), Why: f.Unplaced[j.ID]}
		if j.JobSummary != nil {
			for _, g := range j.JobSummary.Summary {
				out.Running += g.Running
				out.Desired += g.Running + g.Starting + g.Queued
			}
		}
		list = append(list, out)
	}
	slices.SortFunc(list, func(a, b Job) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// consulNodes groups the checks by node and instance.
func consulNodes(f ConsulFacts) []*ConsulNode {
	list := []*ConsulNode{}
	for _, n := range f.Nodes {
		out := &ConsulNode{Name: n.Node, Failing: []Check{}, Services: []Service{}}
		at := map[string]int{} // an instance's id → its place
		alive := true
		for _, c := range f.Checks {
			if c.Node != n.Node {
				continue
			}
			critical := c.Status == consul.HealthCritical || c.Status == consul.HealthMaint
			if c.ServiceID == "" {
				alive = alive && !critical
				out.Failing = failing(out.Failing, c)
				continue
			}
			i, ok := at[c.ServiceID]
			if !ok {
				i = len(out.Services)
				at[c.ServiceID] = i
				out.Services = append(out.Services, Service{ID: c.ServiceID, Name: c.ServiceName, Passing: true, Failing: []Check{}})
			}
			s := &out.Services[i]
			s.Passing = s.Passing && !critical
			s.Failing = failing(s.Failing, c)
		}
		for i := range out.Services {
			out.Services[i].Passing = out.Services[i].Passing && alive
		}
		slices.SortFunc(out.Services, func(a, b Service) int { return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID)) })
		list = append(list, out)
	}
	return list
}

func failing(list []Check, c *consul.HealthCheck) []Check {
	if c.Status == consul.HealthPassing {
		return list
	}
	return append(list, Check{Name: c.Name, Status: c.Status, Output: strings.Join(strings.Fields(c.Output), " ")})
}
