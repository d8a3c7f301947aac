package scaler

import (
	"context"
	"fmt"
	"sync"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/services/scaling"
)

// sample asks how busy the group's running allocations are.
func (s *Scaler) sample(ctx context.Context, g *nomad.TaskGroup, allocs []*nomad.AllocationListStub) scaling.Sample {
	out := scaling.Sample{At: s.now(), Count: *g.Count, Min: int(*g.Scaling.Min), Max: int(*g.Scaling.Max)}
	var running []*nomad.AllocationListStub
	for _, a := range allocs {
		if a.TaskGroup != *g.Name || a.DesiredStatus != nomad.AllocDesiredStatusRun || a.NextAllocation != "" {
			continue
		}
		switch a.ClientStatus {
		case nomad.AllocClientStatusRunning:
			running = append(running, a)
		case nomad.AllocClientStatusUnknown:
			out.Unknown = fmt.Sprintf("%s is on a node that is cut off", short(a.ID))
		}
	}
	used, errs := make([]float64, len(running)), make([]error, len(running))
	var wg sync.WaitGroup
	for i, a := range running {
		wg.Go(func() {
			var u *nomad.AllocResourceUsage
			if u, errs[i] = s.view.stats(ctx, a.ID); errs[i] == nil {
				used[i], errs[i] = utilization(a, u)
			}
		})
	}
	wg.Wait()
	for i, a := range running {
		if errs[i] != nil {
			out.Unknown = fmt.Sprintf("%s: %v", short(a.ID), errs[i])
			continue
		}
		out.Running = append(out.Running, used[i])
	}
	return out
}

// utilization is what an allocation's running tasks use of the CPU, of what they
// reserve; both in MHz.
func utilization(a *nomad.AllocationListStub, u *nomad.AllocResourceUsage) (float64, error) {
	if a.AllocatedResources == nil {
		return 0, fmt.Errorf("what it reserves is not known")
	}
	var used float64
	var reserved int64
	for name, state := range a.TaskStates {
		if state == nil || state.State != "running" { // such as a prestart task, which has ended
			continue
		}
		r, t := a.AllocatedResources.Tasks[name], u.Tasks[name]
		if t == nil || t.ResourceUsage == nil || t.ResourceUsage.CpuStats == nil {
			return 0, fmt.Errorf("its task %s has not been measured yet", name)
		}
		if r != nil {
			reserved += r.Cpu.CpuShares
		}
		used += t.ResourceUsage.CpuStats.TotalTicks
	}
	if reserved <= 0 {
		return 0, fmt.Errorf("it has no running task that reserves CPU")
	}
	return used / float64(reserved), nil
}

// short is the part of an id that Nomad's own command shows.
func short(id string) string { return id[:min(len(id), 8)] }
