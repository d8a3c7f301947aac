package overview

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

var now = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

func node(id, name, address string) *nomad.NodeListStub {
	return &nomad.NodeListStub{ID: id, Name: name, Address: address, Status: nomad.NodeStatusReady, SchedulingEligibility: nomad.NodeSchedulingEligible}
}

func alloc(id, node, job string) *nomad.AllocationListStub {
	return &nomad.AllocationListStub{ID: id, NodeID: node, JobID: job, JobType: nomad.JobTypeService, DesiredStatus: nomad.AllocDesiredStatusRun,
		ClientStatus: nomad.AllocClientStatusRunning, CreateTime: now.Add(-time.Hour).UnixNano()}
}

// well is a cluster of two nodes, a worker and a stream, of which nothing is wrong.
func well() Facts {
	return Facts{
		Nomad: NomadFacts{Leader: true, Nodes: []*nomad.NodeListStub{node("1", "w1", "10.0.0.1"), node("2", "w2", "10.0.0.2")},
			Allocs: []*nomad.AllocationListStub{alloc("a1", "1", "worker"), alloc("a2", "2", "router")},
			Jobs: []*nomad.JobListStub{{ID: "router", Type: nomad.JobTypeService, JobSummary: &nomad.JobSummary{
				Summary: map[string]nomad.TaskGroupSummary{"router": {Running: 1}}}}}},
		Consul: ConsulFacts{Leader: true, Nodes: []*consul.Node{{Node: "w1", Address: "10.0.0.1"}, {Node: "w2", Address: "10.0.0.2"}},
			Checks: consul.HealthChecks{
				{Node: "w1", CheckID: "serfHealth", Name: "Serf Health Status", Status: consul.HealthPassing},
				{Node: "w1", ServiceID: "origin-w1", ServiceName: "origin", Name: "ready", Status: consul.HealthPassing},
			}},
		API: APIFacts{Workers: []wire.Worker{{ID: "w1", Host: "w1", Ready: true, NomadNode: ptr("1"), AgeSeconds: 0.4}},
			Streams: []wire.StreamStatus{{Stream: "demo", State: wire.StreamStateLive, Session: &wire.Session{Node: "w2"},
				Broadcast: &wire.Broadcast{State: wire.BroadcastStateLive, StartedAt: now.Add(-time.Minute)}}}},
	}
}

func texts(s *Status) (all []string) {
	for _, p := range s.Problems {
		all = append(all, fmt.Sprintf("%s %s %s: %s", p.Level, p.Kind, p.Name, p.Text))
	}
	return all
}

func TestNothingWrong(t *testing.T) {
	s := Assemble(well(), now)
	if len(s.Problems) != 0 || len(s.Nodes) != 2 {
		t.Fatalf("%d nodes, problems %q", len(s.Nodes), texts(s))
	}
	w1, w2 := s.Nodes[0], s.Nodes[1]
	if w1.Nomad.ID != "1" || len(w1.Nomad.Allocations) != 1 || len(w1.Workers) != 1 || len(w1.Consul.Services) != 1 || !w1.Consul.Services[0].Passing {
		t.Errorf("%+v", w1)
	}
	if fmt.Sprint(w2.Ingests) != "[demo]" || len(w2.Workers) != 0 {
		t.Errorf("%+v", w2)
	}
}

func TestProblems(t *testing.T) {
	first := func(f *Facts) *wire.Worker { return &f.API.Workers[0] }
	demo := func(f *Facts) *wire.StreamStatus { return &f.API.Streams[0] }
	for name, tc := range map[string]struct {
		change func(f *Facts)
		want   string // "" for none
	}{
		"a node that is down": {func(f *Facts) { f.Nomad.Nodes[1].Status = "down" }, "critical node w2: Nomad says that it is down"},
		"an old registration of a node": {func(f *Facts) {
			old := node("0000000000", "w1", "10.0.0.1")
			old.Status = "down"
			f.Nomad.Nodes = append(f.Nomad.Nodes, old)
		}, "warning node w1: an earlier registration of it, 00000000, is down; Nomad forgets it in time"},
		"a node that drains": {func(f *Facts) { f.Nomad.Nodes[0].Drain, f.Nomad.Nodes[0].SchedulingEligibility = true, "ineligible" },
			"warning node w1: it drains: what runs there is moved or stopped, nothing new comes"},
		"a node that is ineligible": {func(f *Facts) { f.Nomad.Nodes[0].SchedulingEligibility = "ineligible" },
			"warning node w1: it is ineligible: nothing new comes (nomad node eligibility -enable)"},
		"a driver": {func(f *Facts) {
			f.Nomad.Nodes[0].Drivers = map[string]*nomad.DriverInfo{"raw_exec": {Detected: true, Healthy: true}, "java": {HealthDescription: "none"},
				"docker": {Detected: true, HealthDescription: "no daemon"}}
		}, "warning driver w1/docker: it is not healthy: no daemon"},
		"servers without a leader": {func(f *Facts) { f.Nomad.Leader = false },
			"critical source nomad: its servers have no leader: what it says may be old, and nothing is started anywhere"},
		"Consul without a leader": {func(f *Facts) { f.Consul.Leader = false }, "critical source consul: its servers have no leader: what it says may be old"},
		"a task that restarts": {func(f *Facts) {
			f.Nomad.Allocs[1].ClientStatus = "pending"
			f.Nomad.Allocs[1].TaskStates = map[string]*nomad.TaskState{"router": {State: "pending", Restarts: 3,
				Events: []*nomad.TaskEvent{{Type: nomad.TaskReceived}, {DisplayMessage: "Exit Code: 1"}, {DisplayMessage: "Task restarting in 1s"}}}}
		}, "critical allocation router on w2 (a2): it has been pending for 1h0m0s: router: Exit Code: 1; Task restarting in 1s"},
		"a new allocation": {func(f *Facts) {
			f.Nomad.Allocs[1].ClientStatus, f.Nomad.Allocs[1].CreateTime = "pending", now.Add(-time.Second).UnixNano()
		}, "warning allocation router on w2 (a2): it has been pending for 1s"},
		"one that was lost":        {func(f *Facts) { f.Nomad.Allocs[1].ClientStatus = "lost" }, "critical allocation router on w2 (a2): it is lost"},
		"one that was replaced":    {func(f *Facts) { f.Nomad.Allocs[1].ClientStatus, f.Nomad.Allocs[1].NextAllocation = "lost", "a3" }, ""},
		"one that was stopped":     {func(f *Facts) { f.Nomad.Allocs[1].ClientStatus, f.Nomad.Allocs[1].DesiredStatus = "complete", "stop" }, ""},
		"a batch job that is over": {func(f *Facts) { f.Nomad.Allocs[1].ClientStatus, f.Nomad.Allocs[1].JobType = "complete", "batch" }, ""},
		"a service that has ended": {func(f *Facts) { f.Nomad.Allocs[1].ClientStatus = "complete" }, "critical allocation router on w2 (a2): it is complete"},
		"an unhealthy one":         {func(f *Facts) { f.Nomad.Allocs[1].DeploymentStatus = &nomad.AllocDeploymentStatus{Healthy: ptr(false)} }, "critical allocation router on w2 (a2): it runs, and its deployment found it unhealthy"},
		"a task that has ended": {func(f *Facts) {
			f.Nomad.Allocs[1].TaskStates = map[string]*nomad.TaskState{"config": {State: "dead", Events: []*nomad.TaskEvent{{}}}}
		}, ""},
		"one that no node takes": {func(f *Facts) {
			f.Nomad.Jobs[0].JobSummary.Summary["router"] = nomad.TaskGroupSummary{Running: 1, Queued: 1}
			f.Nomad.Unplaced = map[string]string{"router": "why"}
		}, "critical job router: no node takes 1 of the 2 that should run: why"},
		"a job of which none runs": {func(f *Facts) { f.Nomad.Jobs[0].JobSummary.Summary = nil }, "critical job router: none of it runs, or is to"},
		"a job that was stopped":   {func(f *Facts) { f.Nomad.Jobs[0].JobSummary.Summary, f.Nomad.Jobs[0].Stop = nil, true }, ""},
		"a check": {func(f *Facts) {
			c := f.Consul.Checks[1]
			c.Status, c.Output = "critical", "Get \"http://x\":\n  connection  refused\n"
		}, `critical check origin on w1: ready is critical: Get "http://x": connection refused`},
		"a check that warns":        {func(f *Facts) { f.Consul.Checks[1].Status = "warning" }, "warning check origin on w1: ready is warning"},
		"a node that Consul misses": {func(f *Facts) { f.Consul.Checks[0].Status, f.Consul.Checks[0].Output = "critical", "Agent not live" }, "critical check w1: Serf Health Status is critical: Agent not live"},
		"a token that sees a part":  {func(f *Facts) { f.Consul.Filtered = true }, "critical source consul: the token may not read all nodes and services; consul/policies/operator.hcl may"},
		"a worker that is not ready": {func(f *Facts) { first(f).Ready, first(f).Reason = false, ptr("GPAC can't be started") },
			"critical worker w1: it is not ready: GPAC can't be started"},
		"a worker that drains": {func(f *Facts) { first(f).Drain, first(f).DrainReason = true, ptr("an operator asked for it") },
			"warning worker w1: it takes nothing new: an operator asked for it"},
		"an old report": {func(f *Facts) { first(f).AgeSeconds = 4.25 }, "critical worker w1: its last report is 4.2 s old; two a second should come"},
		"a wrong clock": {func(f *Facts) { first(f).ClockErrorMs = ptr(-350.0) }, "critical worker w1: its clock is -350 ms from Redis' clock, over 200: it takes no placements"},
		"an unusable GPU": {func(f *Facts) {
			first(f).Devices = []wire.Device{{ID: "gpu-1", Name: "A100", Reason: ptr("it has no NVENC")}}
		}, "warning device w1/gpu-1: A100 is not usable: it has no NVENC"},
		"a silent worker": {func(f *Facts) { f.API.Workers = []wire.Worker{} }, "critical worker w1: the job worker runs there, and no worker reports: it may not reach Redis"},
		"without its job": {func(f *Facts) { f.API.Workers, f.Nomad.Allocs = []wire.Worker{}, nil }, "critical worker w1: its origin passes in Consul, and no worker reports: it may not reach Redis"},
		"an unasked api":  {func(f *Facts) { f.API = APIFacts{Off: true} }, ""},
		"a stream waits": {func(f *Facts) {
			demo(f).Broadcast.WaitingSince, demo(f).Broadcast.Reason = ptr(now.Add(-12*time.Second)), ptr("no capacity: px")
		}, "critical stream demo: it has waited for capacity for 12s: no capacity: px"},
		"a stream fails":     {func(f *Facts) { demo(f).State, demo(f).LastError = "failing", ptr("GPAC ended") }, "critical stream demo: its transcode fails: GPAC ended"},
		"a stream, no run":   {func(f *Facts) { demo(f).State = "waiting" }, "critical stream demo: it has a publisher and no run"},
		"a stream, new":      {func(f *Facts) { demo(f).State, demo(f).Broadcast.StartedAt = "waiting", now.Add(time.Second) }, ""},
		"a lower stream":     {func(f *Facts) { demo(f).Placement = &wire.Placement{Dropped: []string{"1080p", "720p"}} }, "warning stream demo: it goes without 1080p, 720p for want of room"},
		"Nomad away":         {func(f *Facts) { f.Nomad = NomadFacts{NodesErr: errors.New("refused")} }, "critical source nomad: refused"},
		"no right to allocs": {func(f *Facts) { f.Nomad.Allocs, f.Nomad.AllocsErr = nil, errors.New("may not") }, "critical source nomad: may not"},
	} {
		t.Run(name, func(t *testing.T) {
			f := well()
			tc.change(&f)
			if got := strings.Join(texts(Assemble(f, now)), "; "); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestUnknownIsNil(t *testing.T) {
	f := well()
	f.Nomad.Allocs, f.Nomad.AllocsErr, f.Nomad.Jobs, f.Nomad.JobsErr = nil, errors.New("no"), nil, errors.New("no")
	f.API.Streams, f.API.StreamsErr = nil, errors.New("no")
	s := Assemble(f, now)
	if s.Jobs != nil || s.Streams != nil || s.Nodes[0].Nomad.Allocations != nil {
		t.Errorf("%+v", s)
	}
	s = Assemble(well(), now)
	if s.Jobs == nil || s.Streams == nil || s.Nodes[0].Nomad.Allocations == nil || s.Nodes[0].Nomad.Drivers == nil {
		t.Errorf("%+v", s)
	}
}

// The worst is first.
func TestCriticalComesFirst(t *testing.T) {
	f := well()
	f.Nomad.Nodes[0].Drain = true
	f.API.Streams[0].State = "failing"
	s := Assemble(f, now)
	if len(s.Problems) != 2 || s.Problems[0].Level != Critical || len(s.Critical()) != 1 {
		t.Errorf("%q", texts(s))
	}
}

func TestOneMachineIsOneRow(t *testing.T) {
	f := well()
	f.Consul.Nodes[1].Node = "w2.example.org" // by its address
	f.API.Workers = append(f.API.Workers,
		wire.Worker{ID: "w2", Host: "other", Ready: true},
		wire.Worker{ID: "lone", Host: "bare", Ready: true, Origin: "10.0.0.9:8091"})
	f.API.Streams = append(f.API.Streams, wire.StreamStatus{Stream: "x", State: "live", Session: &wire.Session{Node: "in1"}})
	f.Consul.Nodes = append(f.Consul.Nodes, &consul.Node{Node: "server", Address: "10.0.0.8"})
	old := node("0", "w2", "10.0.0.2") // registered earlier, and listed first
	old.Status = "down"
	f.Nomad.Nodes = append([]*nomad.NodeListStub{old}, f.Nomad.Nodes...)
	var rows []string
	for _, n := range Assemble(f, now).Nodes {
		rows = append(rows, fmt.Sprintf("%s@%s nomad=%t consul=%t workers=%d", n.Name, n.Address, n.Nomad != nil, n.Consul != nil, len(n.Workers)))
	}
	slices.Sort(rows)
	want := []string{
		"bare@10.0.0.9 nomad=false consul=false workers=1", "in1@ nomad=false consul=false workers=0",
		"server@10.0.0.8 nomad=false consul=true workers=0", "w1@10.0.0.1 nomad=true consul=true workers=1",
		"w2@10.0.0.2 nomad=true consul=false workers=0", "w2@10.0.0.2 nomad=true consul=true workers=1",
	}
	if !slices.Equal(rows, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
}
