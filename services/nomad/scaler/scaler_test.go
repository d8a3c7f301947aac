package scaler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	nomad "github.com/hashicorp/nomad/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/dionysia-dev/dionysia/services/scaling"
)

// fake is a Nomad of one job with one group, whose allocations all use as much.
type fake struct {
	count, lowest, most int
	mhz                 float64 // used by each, of 100 reserved
	change              func(j *nomad.Job)
	allocs              func(list []*nomad.AllocationListStub)
	deployment          bool
	err, statsErr       error
	refused             error
	asked               []request
}

func ptr[T any](v T) *T { return &v }

func (f *fake) job(_ context.Context, id string) (*nomad.Job, error) {
	j := &nomad.Job{ID: &id, Type: ptr("service"), Stop: ptr(false), JobModifyIndex: ptr(uint64(7)), TaskGroups: []*nomad.TaskGroup{{
		Name: ptr("g"), Count: &f.count, Scaling: &nomad.ScalingPolicy{Enabled: ptr(true), Min: ptr(int64(f.lowest)), Max: ptr(int64(f.most))}}}}
	if f.change != nil {
		f.change(j)
	}
	return j, f.err
}

func (f *fake) deploying(context.Context, string) (bool, error) { return f.deployment, nil }

func (f *fake) allocations(context.Context, string) (list []*nomad.AllocationListStub, err error) {
	for i := range f.count {
		list = append(list, &nomad.AllocationListStub{ID: fmt.Sprintf("%08d-x", i), TaskGroup: "g", DesiredStatus: "run", ClientStatus: "running",
			TaskStates: map[string]*nomad.TaskState{"t": {State: "running"}, "before": {State: "dead"}},
			AllocatedResources: &nomad.AllocatedResources{Tasks: map[string]*nomad.AllocatedTaskResources{
				"t": {Cpu: nomad.AllocatedCpuResources{CpuShares: 100}}, "before": {Cpu: nomad.AllocatedCpuResources{CpuShares: 1000}}}}})
	}
	if f.allocs != nil {
		f.allocs(list)
	}
	return list, nil
}

func (f *fake) stats(_ context.Context, id string) (*nomad.AllocResourceUsage, error) {
	if f.statsErr != nil && strings.HasPrefix(id, "00000000") {
		return nil, f.statsErr
	}
	return &nomad.AllocResourceUsage{Tasks: map[string]*nomad.TaskResourceUsage{"t": {ResourceUsage: &nomad.ResourceUsage{CpuStats: &nomad.CpuStats{TotalTicks: f.mhz}}}}}, nil
}

func (f *fake) scale(_ context.Context, r request) error {
	f.asked = append(f.asked, r)
	if f.refused == nil {
		f.count = r.to
	}
	return f.refused
}

// rig is a scaler whose clock the test turns.
type rig struct {
	*fake
	s   *Scaler
	log bytes.Buffer
	at  time.Time
}

func newRig(t *testing.T, f *fake) *rig {
	t.Helper()
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{fake: f, at: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	r.s = &Scaler{view: f, jobs: []string{"router"}, policy: scaling.Default(), m: m, now: func() time.Time { return r.at },
		log:    hclog.New(&hclog.LoggerOptions{Output: &r.log, Level: hclog.Info}),
		states: map[groupName]scaling.State{}, unknown: map[groupName]time.Time{}, said: map[string]string{}}
	return r
}

func (r *rig) run(t *testing.T, d time.Duration) {
	for end := r.at.Add(d); !r.at.After(end); r.at = r.at.Add(5 * time.Second) {
		r.s.turn(t.Context())
	}
}

func TestScales(t *testing.T) {
	r := newRig(t, &fake{count: 2, lowest: 1, most: 3, mhz: 90})
	r.run(t, 35*time.Second)
	if len(r.asked) != 1 || r.asked[0].from != 2 || r.asked[0].to != 3 || r.asked[0].index != 7 || r.asked[0].group != "g" {
		t.Fatalf("%+v", r.asked)
	}
	if want := "dionysia: 2 → 3 instances: CPU of what is reserved: a mean of 90 % over 2 running, above the target of 60 % for 30s"; r.asked[0].message != want {
		t.Errorf("%q", r.asked[0].message)
	}
	r.mhz = 1
	r.run(t, 15*time.Minute)
	if len(r.asked) != 3 || r.count != 1 {
		t.Errorf("%d instances after %+v", r.count, r.asked)
	}
	g := groupName{"router", "g"}
	if u := testutil.ToFloat64(r.s.m.utilization.WithLabelValues(g.job, g.group)); u != 0.01 {
		t.Errorf("utilization %v", u)
	}
	if out, in := testutil.ToFloat64(r.s.m.changes.WithLabelValues("router", "g", "out")), testutil.ToFloat64(r.s.m.changes.WithLabelValues("router", "g", "in")); out != 1 || in != 2 {
		t.Errorf("%v out, %v in", out, in)
	}
}

func TestStaysAndSaysWhyOnce(t *testing.T) {
	first := func(change func(a *nomad.AllocationListStub)) func([]*nomad.AllocationListStub) {
		return func(list []*nomad.AllocationListStub) { change(list[0]) }
	}
	for name, tc := range map[string]struct {
		change func(f *fake)
		says   string // "" for nothing
	}{
		"no such job":      {func(f *fake) { f.err = errors.New("Nomad has no such job") }, "Nomad has no such job"},
		"Nomad is away":    {func(f *fake) { f.err = &awayError{errors.New("connection refused")} }, "Nomad does not answer: nothing is scaled until it does: error=\"connection refused\""},
		"no scaling block": {func(f *fake) { f.change = func(j *nomad.Job) { j.TaskGroups[0].Scaling = nil } }, "no group of the job has a scaling block: add scaling { enabled = true, min = 1, max = 4 } to its job file"},
		"a disabled one": {func(f *fake) { f.change = func(j *nomad.Job) { j.TaskGroups[0].Scaling.Enabled = ptr(false) } },
			"the scaling block of g is not enabled"},
		"a system job":   {func(f *fake) { f.change = func(j *nomad.Job) { j.Type = ptr("system") } }, "only service jobs have a count: take router out of --scale-jobs"},
		"a stopped job":  {func(f *fake) { f.change = func(j *nomad.Job) { j.Stop = ptr(true) } }, "the job is stopped"},
		"a deployment":   {func(f *fake) { f.deployment = true }, ""},
		"partial data":   {func(f *fake) { f.statsErr = errors.New("No path to node") }, "g is not scaled while not all is known: 00000000: No path to node"},
		"a cut-off node": {func(f *fake) { f.allocs = first(func(a *nomad.AllocationListStub) { a.ClientStatus = "unknown" }) }, "00000000 is on a node that is cut off"},
		"nothing reserved": {func(f *fake) {
			f.allocs = first(func(a *nomad.AllocationListStub) { a.AllocatedResources = nil })
		}, "what it reserves is not known"},
		"not measured yet": {func(f *fake) {
			f.allocs = first(func(a *nomad.AllocationListStub) { a.TaskStates["other"] = &nomad.TaskState{State: "running"} })
		}, "its task other has not been measured yet"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{count: 2, lowest: 1, most: 9, mhz: 900}
			tc.change(f)
			r := newRig(t, f)
			r.run(t, 10*time.Minute)
			if len(r.asked) != 0 {
				t.Errorf("it asked for %+v", r.asked)
			}
			switch said := r.log.String(); {
			case tc.says == "" && said != "":
				t.Errorf("it said %s", said)
			case strings.Count(said, "[WARN]") > 1 || !strings.Contains(said, tc.says):
				t.Errorf("it said %s", said)
			}
		})
	}
}

// What ended, or was replaced, does not count; what starts is not there yet.
func TestOnlyRunningCount(t *testing.T) {
	f := &fake{count: 3, lowest: 1, most: 9, mhz: 100}
	f.allocs = func(list []*nomad.AllocationListStub) {
		list[0].ClientStatus, list[0].NextAllocation = "unknown", "another"
		list[1].ClientStatus = "failed"
	}
	r := newRig(t, f)
	s := r.s.sample(t.Context(), mustJob(t, f).TaskGroups[0], mustAllocs(t, f))
	if s.Unknown != "" || len(s.Running) != 1 || s.Running[0] != 1 || s.Count != 3 {
		t.Errorf("%+v", s)
	}
}

func mustJob(t *testing.T, f *fake) *nomad.Job {
	j, err := f.job(t.Context(), "router")
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func mustAllocs(t *testing.T, f *fake) []*nomad.AllocationListStub {
	list, err := f.allocations(t.Context(), "router")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestWhatWasRefusedIsAskedAgain(t *testing.T) {
	r := newRig(t, &fake{count: 1, lowest: 1, most: 2, mhz: 90, refused: errors.New("job scaling blocked due to active deployment")})
	r.run(t, 45*time.Second)
	if len(r.asked) < 3 || strings.Count(r.log.String(), "[WARN]") != 1 {
		t.Errorf("%d times, it said %s", len(r.asked), r.log.String())
	}
	r.refused = nil
	r.run(t, 10*time.Second)
	if r.count != 2 || !strings.Contains(r.log.String(), "scaling works again") {
		t.Errorf("%d instances, it said %s", r.count, r.log.String())
	}
}
