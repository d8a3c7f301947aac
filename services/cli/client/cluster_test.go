package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	consul "github.com/hashicorp/consul/api"
	nomad "github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/cli/overview"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// troubled is a cluster in which much is wrong: a host is down, another drains, a
// router fails its check and a third of it finds no node, a stream waits.
func troubled() overview.Facts {
	node := func(id, name string) *nomad.NodeListStub {
		return &nomad.NodeListStub{ID: id + "-0000-0000", Name: name, Address: "10.9.0." + id, Status: "ready", SchedulingEligibility: "eligible",
			Drivers: map[string]*nomad.DriverInfo{"raw_exec": {Detected: true, Healthy: true}, "exec": {Detected: true, Healthy: true}, "qemu": {}}}
	}
	server, ingest, w1, w2 := node("1", "server"), node("2", "ingest"), node("3", "w1"), node("4", "w2")
	w1.Drain, w1.SchedulingEligibility = true, "ineligible"
	w2.Status, w2.StatusDescription = "down", "heartbeat missed"
	server.Drivers["exec"].Healthy, server.Drivers["exec"].HealthDescription = false, "cgroups are not mounted"
	alloc := func(id string, n *nomad.NodeListStub, job, kind, status string) *nomad.AllocationListStub {
		return &nomad.AllocationListStub{ID: id + "aaaaaaa-bbbb", NodeID: n.ID, JobID: job, JobType: kind, DesiredStatus: "run", ClientStatus: status,
			CreateTime: noon.Add(-time.Hour).UnixNano()}
	}
	failing := alloc("5", ingest, "router", "service", "pending")
	failing.TaskStates = map[string]*nomad.TaskState{"router": {State: "pending", Restarts: 4, Events: []*nomad.TaskEvent{{DisplayMessage: "Exit Code: 1, Exit Message: \"the address is in use\""}}}}
	summary := func(id, kind string, running, starting, queued int) *nomad.JobListStub {
		return &nomad.JobListStub{ID: id, Type: kind, JobSummary: &nomad.JobSummary{Summary: map[string]nomad.TaskGroupSummary{id: {Running: running, Starting: starting, Queued: queued}}}}
	}
	check := func(node, service, name, status, output string) *consul.HealthCheck {
		return &consul.HealthCheck{Node: node, ServiceID: service, ServiceName: service, Name: name, Status: status, Output: output}
	}
	limit := int64(390_000_000)
	return overview.Facts{
		Nomad: overview.NomadFacts{Address: "https://10.9.0.1:4646", Leader: true, Nodes: []*nomad.NodeListStub{w2, w1, ingest, server},
			Allocs: []*nomad.AllocationListStub{alloc("1", server, "api", "service", "running"), alloc("2", server, "router", "service", "running"),
				alloc("3", ingest, "ingest", "system", "running"), alloc("4", w1, "worker", "system", "running"), failing},
			Jobs:     []*nomad.JobListStub{summary("api", "service", 1, 0, 0), summary("router", "service", 1, 1, 1), summary("worker", "system", 1, 0, 0), summary("ingest", "system", 1, 0, 0)},
			Unplaced: map[string]string{"router": "2 of 4 nodes filtered by ${meta.dionysia} set_contains router"}},
		Consul: overview.ConsulFacts{Address: "127.0.0.1:8500", Leader: true,
			Nodes: []*consul.Node{{Node: "server", Address: "10.9.0.1"}, {Node: "ingest", Address: "10.9.0.2"}, {Node: "w1", Address: "10.9.0.3"}},
			Checks: consul.HealthChecks{check("server", "", "Serf Health Status", "passing", ""), check("server", "api", "ready: Redis answers", "passing", ""),
				check("server", "router", "ready", "critical", "HTTP GET http://10.9.0.1:9000/readyz: 503 Service Unavailable Output: redis: connection refused\n"),
				check("ingest", "mediamtx", "alive", "passing", ""), check("ingest", "ingest", "RTMP takes connections", "passing", ""),
				check("w1", "origin", "alive", "passing", ""), check("w1", "worker", "ready", "warning", "slow")}},
		API: overview.APIFacts{Address: "http://10.9.0.1:8080",
			Workers: []wire.Worker{{ID: "w1", Host: "w1", Ready: true, Drain: true, DrainReason: ptr("its Nomad node w1 drains"), AgeSeconds: 0.3, NomadNode: ptr(w1.ID),
				Devices: []wire.Device{
					{ID: "cpu", Kind: "cpu", Usable: true, Streams: map[string]int64{"demo": 53_500_000}, Resources: []wire.Resource{{Resource: "cpu", Unit: "px/s", Held: 53_500_000, Limit: &limit}}},
					{ID: geforce, Kind: "gpu", Usable: true, Streams: map[string]int64{"demo": 1, "news": 1}, Resources: []wire.Resource{{Resource: geforce, Unit: "px/s", Held: 109_065_600, Limit: ptr(int64(2_146_590_720))}}},
					{ID: "gpu-2", Kind: "gpu", Usable: true, Resources: []wire.Resource{{Resource: "gpu-2", Unit: "px/s"}}},
				}}},
			Streams: []wire.StreamStatus{
				{Stream: "demo", State: "live", Session: &wire.Session{Node: "ingest"}, Broadcast: &wire.Broadcast{State: "live", StartedAt: noon}},
				{Stream: "news", State: "live", Session: &wire.Session{Node: "ingest"}, Broadcast: &wire.Broadcast{State: "live", StartedAt: noon}, Placement: &wire.Placement{Dropped: []string{"1080p"}}},
				{Stream: "sport", State: "waiting", Session: &wire.Session{Node: "ingest"}, Broadcast: &wire.Broadcast{State: "live", StartedAt: noon, WaitingSince: ptr(noon.Add(-42 * time.Second)),
					Reason: ptr("no capacity: w1/cpu: the worker drains")}},
			}},
	}
}

func TestClusterStatusTables(t *testing.T) {
	for name, change := range map[string]func(f *overview.Facts){
		"cluster_troubled": func(*overview.Facts) {},
		// What can't be had is a question mark, and why is said.
		"cluster_refused": func(f *overview.Facts) {
			f.Nomad.Allocs, f.Nomad.Jobs = nil, nil
			f.Nomad.AllocsErr, f.Nomad.JobsErr = errors.New("listing the allocations: the token may not"), errors.New("listing the jobs: the token may not")
			f.Consul = overview.ConsulFacts{Address: f.Consul.Address, Err: errors.New("connection refused")}
			f.API.Streams, f.API.StreamsErr = nil, errors.New("Redis does not answer")
		},
		"cluster_api_away": func(f *overview.Facts) {
			f.API = overview.APIFacts{Address: f.API.Address, WorkersErr: errors.New("the api can't be reached")}
		},
		// An installation without either.
		"cluster_neither": func(f *overview.Facts) {
			f.Nomad, f.Consul = overview.NomadFacts{Address: "off", Off: true}, overview.ConsulFacts{Address: "off", Off: true}
			f.API.Streams = f.API.Streams[:1]
			f.API.Workers[0].Drain = false
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := troubled()
			change(&f)
			var out bytes.Buffer
			table := newTable(&out)
			printStatus(table, overview.Assemble(f, noon), whole)
			if err := table.flush(); err != nil {
				t.Fatal(err)
			}
			golden(t, name, out.String())
		})
	}
}

func TestManyProblemsAreFolded(t *testing.T) {
	f := troubled()
	for i := range 30 {
		f.API.Streams = append(f.API.Streams, wire.StreamStatus{Stream: fmt.Sprint("s", i), State: "failing"})
	}
	var out bytes.Buffer
	table := newTable(&out)
	printStatus(table, overview.Assemble(f, noon), aGlance)
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	contains(t, out.String(), "and 21 more of it")
	if n := strings.Count(out.String(), "its transcode fails"); n != aGlance-1 {
		t.Errorf("%d lines of failing streams", n)
	}
}

// TestClusterStatus asks a real Nomad, a real Consul and a real api, on whose node
// a task can't start and a check fails.
func TestClusterStatus(t *testing.T) {
	c, n, k := newCluster(t), testkit.StartNomad(t), testkit.StartConsul(t, time.Second)
	nc, err := nomad.NewClient(&nomad.Config{Address: n.Addr})
	if err != nil {
		t.Fatal(err)
	}
	nodes, _, err := nc.Nodes().List(nil)
	if err != nil {
		t.Fatal(err)
	}
	for id, command := range map[string]string{"good": "/bin/sleep", "bad": "/nonexistent"} {
		task := nomad.NewTask("main", "raw_exec").SetConfig("command", command).SetConfig("args", []string{"1000"})
		job := nomad.NewServiceJob(id, id, "global", 50).AddDatacenter("*").AddTaskGroup(nomad.NewTaskGroup("group", 1).AddTask(task))
		if id == "good" {
			job.AddTaskGroup(nomad.NewTaskGroup("nowhere", 2).AddTask(task).Constrain(nomad.NewConstraint("${attr.kernel.name}", "=", "plan9")))
		}
		if _, _, err := nc.Jobs().Register(job, nil); err != nil {
			t.Fatal(err)
		}
	}
	kc, err := consul.NewClient(&consul.Config{Address: k.HTTPAddr})
	if err != nil {
		t.Fatal(err)
	}
	if err := kc.Agent().ServiceRegister(&consul.AgentServiceRegistration{ID: "router-1", Name: "router", Port: 9,
		Check: &consul.AgentServiceCheck{Name: "ready", TTL: "1h", Status: "passing"}}); err != nil {
		t.Fatal(err)
	}
	if err := kc.Agent().UpdateTTL("service:router-1", "Redis does not answer", consul.HealthCritical); err != nil {
		t.Fatal(err)
	}
	c.run("stream", "create", "demo")
	since := time.Now()
	if err := c.store.PutBroadcast(t.Context(), stream.Broadcast{ID: "b", Stream: "demo", State: stream.BroadcastLive, StartedAt: since, WaitingSince: &since,
		Reason: "no capacity: nothing is free", Session: &stream.Session{ID: "s", Node: nodes[0].Name}}); err != nil {
		t.Fatal(err)
	}
	args := []string{"cluster", "status", "--nomad-addr", n.Addr, "--consul-addr", k.HTTPAddr}
	fresh := func() { // a report expires within seconds
		if err := c.store.PutIngestReport(t.Context(), store.IngestReport{Node: nodes[0].Name, Boot: "b", Time: since, Paths: []store.IngestPath{{Stream: "demo", Session: "s", Ready: true}}}); err != nil {
			t.Fatal(err)
		}
		if err := c.store.PutReport(t.Context(), capacity.Report{Worker: "w1", Boot: "b", Host: "h", Ready: true, GPAC: "2.4", Time: time.Now(), NomadNode: nodes[0].ID,
			Devices: []capacity.Device{{ID: "cpu", Kind: capacity.CPU, Name: "CPU", Usable: true, Capacity: ptr(int64(120_000_000))}}}); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, time.Minute, "all that is wrong", func() error {
		fresh()
		out := c.run(args...)
		for _, want := range []string{"1 node, 2 jobs", "0 of 1 checked service pass", "1 worker, 1 stream: 1 waiting", "bad 0/1, good 1/1", "0/1, not router", "cpu 0.00/120.00",
			"critical  check       router on", "ready is critical: Redis does not answer", "critical  stream      demo", "no capacity: nothing is free",
			"no node takes 2 of the 3 that should run: 1 of 1 nodes filtered by ${attr.kernel.name} = plan9", "allocation  bad on " + nodes[0].Name, "/nonexistent"} {
			if !strings.Contains(out, want) {
				return fmt.Errorf("%q is not in:\n%s", want, out)
			}
		}
		return nil
	})
	contains(t, c.fails(append(args, "--check")...), "things wrong")
	fresh()
	s := parse[overview.Status](t, c.run(append(args, "-o", "json")...))
	if len(s.Nodes) != 2 && len(s.Nodes) != 1 {
		t.Errorf("%+v", s.Nodes)
	}
	if s.Streams[0].State != "waiting" || len(s.Jobs) != 2 || len(s.Sources) != 3 || len(s.Critical()) < 4 {
		t.Errorf("%+v", s)
	}

	n.Kill()
	contains(t, c.run(args...), "? could not be asked", "critical  source", n.Addr)
	k.Kill()
	var out bytes.Buffer
	err = c.try(t.Context(), &out, append(args, "--api", "http://127.0.0.1:1", "--token-file", c.token)...)
	if err == nil || !strings.Contains(err.Error(), "neither Nomad nor Consul nor the api") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestClusterStatusOfAnInstallationWithoutNomad(t *testing.T) {
	c := newCluster(t)
	args := []string{"cluster", "status", "--nomad-addr", "off", "--consul-addr", "off", "--check"}
	contains(t, c.run(args...), "not used", "0 workers, 0 streams", "Nothing is wrong.")
	missing := filepath.Join(t.TempDir(), "none")
	contains(t, c.run("cluster", "status", "--consul-addr", "off", "--nomad-addr", "127.0.0.1:4646"), `"127.0.0.1:4646" is not a URL such as`)
	for _, command := range [][]string{{"cluster", "status", "--watch"}, {"stream", "watch", "demo"}} {
		if err := c.try(t.Context(), &bytes.Buffer{}, append(command, "--interval", "99ms")...); err == nil || !strings.Contains(err.Error(), "--interval: 99ms is less than 100ms") {
			t.Errorf("%v: %v", command, err)
		}
	}
	contains(t, c.fails(append(args, "--consul-addr", "127.0.0.1:1", "--consul-token-file", missing)...), "1 thing wrong")
	var out bytes.Buffer
	if err := c.try(t.Context(), &out, append(args[:len(args)-1], "--token-file", missing)...); err == nil {
		t.Error("nothing could be asked, and that is no error")
	}
	contains(t, out.String(), "there is no admin token at "+missing)
}

func TestClusterStatusWatches(t *testing.T) {
	c := newCluster(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	for _, output := range []string{"table", "json"} {
		ctx, interrupt := context.WithCancel(ctx)
		out, done := &lockedBuffer{}, make(chan error, 1)
		cmd := ClusterStatusCmd{Flags: Flags{API: c.url, TokenFile: c.token, Output: output}, ClusterFlags: ClusterFlags{NomadAddr: "off", ConsulAddr: "off"},
			Watch: true, Interval: 100 * time.Millisecond}
		go func() { done <- cmd.Run(&Context{Ctx: ctx, Stdout: out}) }()
		want := map[string]string{"table": "Nothing is wrong.", "json": `"problems":[]`}[output]
		testkit.Eventually(t, 20*time.Second, "two of it", func() error {
			if strings.Count(out.String(), want) < 2 {
				return &missing{want, out.String()}
			}
			return nil
		})
		interrupt()
		if err := <-done; err != nil {
			t.Errorf("interrupted: %v", err)
		}
	}
}

// A token that may not read is told from a cluster that is empty.
func TestClusterStatusWithoutTheRightToken(t *testing.T) {
	c := newCluster(t)
	n, nomadToken := testkit.StartNomadWithACL(t)
	k, consulToken := testkit.StartConsulWithACL(t)
	t.Setenv("NOMAD_TOKEN", "")
	t.Setenv("CONSUL_HTTP_TOKEN", "")
	args := []string{"cluster", "status", "--nomad-addr", n.Addr, "--consul-addr", k.HTTPAddr}
	contains(t, c.run(args...), "listing the nodes: the token may not", "listing the allocations: the token may not; it needs the namespace's capability read-job",
		"it shows nothing, not even its own node")
	file := func(name, token string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	args = append(args, "--nomad-token-file", file("nomad", nomadToken), "--consul-token-file", file("consul", consulToken), "--check")
	testkit.Eventually(t, time.Minute, "a cluster that is well", func() error { // a driver, or a check, may be a moment behind the node
		var out bytes.Buffer
		err := c.try(t.Context(), &out, append(args, "--api", c.url, "--token-file", c.token)...)
		for _, want := range []string{"1 node, 0 jobs", "Nothing is wrong."} {
			if !strings.Contains(out.String(), want) {
				err = errors.Join(err, &missing{want, out.String()})
			}
		}
		return err
	})
}
