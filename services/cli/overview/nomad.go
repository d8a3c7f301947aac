package overview

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	nomad "github.com/hashicorp/nomad/api"

	ours "github.com/dionysia-dev/dionysia/services/nomad"
)

// readNomad reads the nodes, and the jobs and allocations of the namespace that
// NOMAD_NAMESPACE names. Of all namespaces at once Nomad would leave out those that
// the token may not read, and say nothing.
func readNomad(ctx context.Context, c *ours.Client) (f NomadFacts) {
	q, err := c.Query(ctx)
	if err != nil {
		f.NodesErr = err
		return f
	}
	nodes, meta, err := c.API().Nodes().List(q)
	if err != nil {
		f.NodesErr = refusedBy(err, "listing the nodes", `node { policy = "read" }`)
		if !isRefusal(err) {
			return f // the rest would fail for the same reason
		}
	} else {
		f.Nodes, f.Leader = nodes, meta.KnownLeader
	}
	const readJob = "the namespace's capability read-job"
	current := *q
	current.Filter = `DesiredStatus == "` + nomad.AllocDesiredStatusRun + `"`
	if f.Allocs, _, err = c.API().Allocations().List(&current); err != nil {
		f.AllocsErr = refusedBy(err, "listing the allocations", readJob)
	}
	if f.Jobs, _, err = c.API().Jobs().List(q); err != nil {
		f.JobsErr = refusedBy(err, "listing the jobs", readJob)
		return f
	}
	f.Unplaced = map[string]string{}
	for _, j := range f.Jobs {
		if !j.Stop && queued(j) > 0 {
			f.Unplaced[j.ID] = unplaced(c, q, j.ID)
		}
	}
	return f
}

func isRefusal(err error) bool {
	var answered nomad.UnexpectedResponseError
	return errors.As(err, &answered) && answered.StatusCode() == http.StatusForbidden
}

// refusedBy says what the token lacks.
func refusedBy(err error, what, needs string) error {
	if isRefusal(err) {
		return fmt.Errorf("%s: the token may not; it needs %s", what, needs)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// queued is how many allocations of a job no node takes.
func queued(j *nomad.JobListStub) (n int) {
	if j.JobSummary != nil {
		for _, g := range j.JobSummary.Summary {
			n += g.Queued
		}
	}
	return n
}

// unplaced says what stands against a job's allocations that are queued: what the
// last evaluation that found no room for all of them says.
func unplaced(c *ours.Client, q *nomad.QueryOptions, job string) string {
	evals, _, err := c.API().Jobs().Evaluations(job, q)
	if err != nil {
		return "why is unknown: " + err.Error()
	}
	var last *nomad.Evaluation
	for _, e := range evals {
		if len(e.FailedTGAllocs) > 0 && (last == nil || e.ModifyIndex > last.ModifyIndex) {
			last = e
		}
	}
	if last == nil {
		return "Nomad has not said why yet"
	}
	var parts []string
	for _, group := range slices.Sorted(maps.Keys(last.FailedTGAllocs)) {
		parts = append(parts, against(last.FailedTGAllocs[group]))
	}
	return strings.Join(parts, "; ")
}

func against(m *nomad.AllocationMetric) string {
	if m.NodesEvaluated == 0 {
		return "no node of its datacenters and pool is ready and eligible"
	}
	var parts []string
	add := func(format string, by map[string]int) {
		for _, what := range slices.Sorted(maps.Keys(by)) {
			parts = append(parts, fmt.Sprintf(format, by[what], m.NodesEvaluated, what))
		}
	}
	add("%d of %d nodes filtered by %s", m.ConstraintFiltered)
	add("%d of %d nodes of class %s filtered", m.ClassFiltered)
	add("%d of %d nodes exhausted: %s", m.DimensionExhausted)
	if len(m.QuotaExhausted) > 0 {
		parts = append(parts, "quota exhausted: "+strings.Join(m.QuotaExhausted, ", "))
	}
	if len(parts) == 0 {
		return fmt.Sprintf("none of %d nodes fits", m.NodesEvaluated)
	}
	return strings.Join(parts, ", ")
}
