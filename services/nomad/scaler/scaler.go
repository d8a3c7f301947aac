// Package scaler asks Nomad for more or fewer instances of jobs, by how busy they
// are. The leader's controller runs it; services/scaling decides.
//
//	each job ──▶ Nomad: its groups' scaling blocks, its deployment, its allocations
//	         ──▶ Nomad's clients: what each running one uses of the CPU that it reserved
//	         ──▶ decide ──▶ ask Nomad for another count, if the job is still as it was read
//
// It is level-triggered: each turn reads all of it, and what could not be asked for
// is asked for again. Without Nomad nothing happens.
package scaler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	nomad "github.com/hashicorp/nomad/api"

	ours "github.com/dionysia-dev/dionysia/services/nomad"
	"github.com/dionysia-dev/dionysia/services/scaling"
)

// interval is how often the jobs are looked at. Nomad's clients measure once a second.
const interval = 5 * time.Second

// view is what a Scaler needs of Nomad.
type view interface {
	job(ctx context.Context, id string) (*nomad.Job, error)
	deploying(ctx context.Context, id string) (bool, error)
	allocations(ctx context.Context, id string) ([]*nomad.AllocationListStub, error)
	stats(ctx context.Context, alloc string) (*nomad.AllocResourceUsage, error)
	scale(ctx context.Context, r request) error
}

// request is a change of a count.
type request struct {
	job, group string
	index      uint64 // the job must still be as it was at this index
	from, to   int
	message    string
	meta       map[string]any
}

// Scaler looks after some jobs.
type Scaler struct {
	view     view
	jobs     []string
	policy   scaling.Policy
	interval time.Duration
	log      hclog.Logger
	m        *Metrics
	now      func() time.Time

	// The leader's memory. Only Lead touches it.
	states  map[groupName]scaling.State
	unknown map[groupName]time.Time // since when not all is known
	said    map[string]string       // what was last said of a job, or of Nomad ("")
}

// groupName names a group of a job.
type groupName struct{ job, group string }

// New returns a scaler of these jobs.
func New(c *ours.Client, jobs []string, p scaling.Policy, log hclog.Logger, m *Metrics) *Scaler {
	return &Scaler{view: &client{c}, jobs: jobs, policy: p, interval: interval, log: log.Named("scaling"), m: m, now: time.Now}
}

// Lead scales until ctx is over. It begins with an empty memory: a job must have
// been busy, or idle, for the whole time before this leader's eyes.
func (s *Scaler) Lead(ctx context.Context) {
	s.states, s.unknown, s.said = map[groupName]scaling.State{}, map[groupName]time.Time{}, map[string]string{}
	defer s.m.forget()
	t := time.NewTicker(s.interval)
	defer t.Stop()
	for {
		s.turn(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// turn looks at all jobs once. When Nomad is away the other jobs are not tried.
func (s *Scaler) turn(ctx context.Context) {
	for _, id := range s.jobs {
		err := s.look(ctx, id)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.m.errors.Inc()
		}
		if away := (*awayError)(nil); errors.As(err, &away) {
			s.states = map[groupName]scaling.State{} // what happens meanwhile is not seen
			s.m.forget()
			s.say("", "Nomad does not answer: nothing is scaled until it does", away.err)
			return
		}
		s.say("", "", nil)
		s.say(id, message(err), nil)
	}
}

// message is what a job's error says.
func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// say warns of what is wrong once, until it is something else, or is over.
func (s *Scaler) say(job, what string, err error) {
	was := s.said[job]
	if was == what {
		return
	}
	s.said[job] = what
	log := s.log
	if job != "" {
		log = log.With("job", job)
	}
	switch {
	case what == "":
		log.Info("scaling works again")
	case err != nil:
		log.Warn(what, "error", err)
	default:
		log.Warn(what)
	}
}

// look looks at one job.
func (s *Scaler) look(ctx context.Context, id string) error {
	job, err := s.view.job(ctx, id)
	if err != nil {
		return err
	}
	groups, err := scalable(job)
	if err != nil {
		return err
	}
	deploying, err := s.view.deploying(ctx, id)
	if err != nil {
		return err
	}
	allocs, err := s.view.allocations(ctx, id)
	if err != nil {
		return err
	}
	var failed error
	for _, g := range groups {
		sample := s.sample(ctx, g, allocs)
		sample.Deploying = deploying
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed = errors.Join(failed, s.decide(ctx, job, g, sample))
	}
	return failed
}

func (s *Scaler) decide(ctx context.Context, job *nomad.Job, g *nomad.TaskGroup, sample scaling.Sample) error {
	name := groupName{*job.ID, *g.Name}
	d, state := s.policy.Decide(sample, s.states[name])
	s.states[name] = state
	s.m.saw(name, sample)
	s.log.Trace("looked", "job", name.job, "group", name.group, "count", sample.Count, "running", len(sample.Running), "wanted", d.Count, "why", d.Why)
	if d.Count == sample.Count {
		return s.patience(name, sample)
	}
	r := request{job: name.job, group: name.group, index: *job.JobModifyIndex, from: sample.Count, to: d.Count,
		message: fmt.Sprintf("dionysia: %d → %d instances: CPU of what is reserved: %s", sample.Count, d.Count, d.Why),
		meta:    map[string]any{"dionysia_target": s.policy.Target, "dionysia_running": len(sample.Running)}}
	if mean, ok := sample.Mean(); ok {
		r.meta["dionysia_mean"] = mean
	}
	if err := s.view.scale(ctx, r); err != nil {
		return fmt.Errorf("asking for %d instances of %s instead of %d: %w", d.Count, name.group, sample.Count, err)
	}
	s.m.changed(name, r.to > r.from)
	s.log.Info("asked Nomad for another count", "job", name.job, "group", name.group, "from", r.from, "to", r.to, "why", d.Why)
	return nil
}

// unknownFor is how long an allocation's use may be unknown before that is said: one
// that has just started has not been measured yet.
const unknownFor = time.Minute

// patience returns an error when not all has been known for long.
func (s *Scaler) patience(name groupName, sample scaling.Sample) error {
	if sample.Unknown == "" {
		delete(s.unknown, name)
		return nil
	}
	if _, ok := s.unknown[name]; !ok {
		s.unknown[name] = sample.At
	}
	if sample.At.Sub(s.unknown[name]) < unknownFor {
		return nil
	}
	return fmt.Errorf("%s is not scaled while not all is known: %s", name.group, sample.Unknown)
}

// scalable are the groups that may be scaled.
func scalable(job *nomad.Job) ([]*nomad.TaskGroup, error) {
	id := *job.ID
	if job.Type != nil && *job.Type != nomad.JobTypeService {
		return nil, fmt.Errorf("the job is of type %s, and only service jobs have a count: take %s out of --scale-jobs", *job.Type, id)
	}
	if job.Stop != nil && *job.Stop {
		return nil, errors.New("the job is stopped: it is scaled when it runs again")
	}
	var groups []*nomad.TaskGroup
	var disabled []string
	for _, g := range job.TaskGroups {
		switch {
		case g.Scaling == nil || g.Scaling.Max == nil || g.Scaling.Min == nil:
		case g.Scaling.Enabled != nil && !*g.Scaling.Enabled:
			disabled = append(disabled, *g.Name)
		default:
			groups = append(groups, g)
		}
	}
	switch {
	case len(groups) > 0:
		return groups, nil
	case len(disabled) > 0:
		return nil, fmt.Errorf("the scaling block of %s is not enabled: set enabled = true in the job file and run it, or take %s out of --scale-jobs", strings.Join(disabled, ", "), id)
	}
	return nil, fmt.Errorf("no group of the job has a scaling block: add scaling { enabled = true, min = 1, max = 4 } to its job file, as in nomad/jobs/router.nomad.hcl, and run it, or take %s out of --scale-jobs", id)
}
