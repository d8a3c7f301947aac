package overview

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	nomad "github.com/hashicorp/nomad/api"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

const (
	// pendingFor is how long an allocation may be on its way.
	pendingFor = time.Minute
	// oldReport is the age of a worker's report, of which two come each second, from
	// which the controller probes the worker; see controller.Config.Suspect.
	oldReport = 2.5
	// maxClockError is the offset from Redis' clock, in ms, from which a worker takes
	// no placements.
	maxClockError = 200
	// unstarted is how long a broadcast may have no run before that is said.
	unstarted = 10 * time.Second
)

// workerJob is the job of nomad/jobs/worker.nomad.hcl, originService what each
// worker registers.
const (
	workerJob     = "worker"
	originService = "origin"
)

// list collects problems.
type list struct {
	all []Problem
	now time.Time
}

func (l *list) add(level, kind, name, format string, args ...any) {
	l.all = append(l.all, Problem{Level: level, Kind: kind, Name: name, Text: fmt.Sprintf(format, args...)})
}

func problems(f Facts, s *Status) []Problem {
	l := &list{all: []Problem{}, now: s.Time}
	for _, src := range s.Sources {
		for _, m := range src.Missing {
			l.add(Critical, "source", src.Name, "%s", m)
		}
	}
	if s.Sources[0].Answered && !f.Nomad.Leader {
		l.add(Critical, "source", Nomad, "its servers have no leader: what it says may be old, and nothing is started anywhere")
	}
	if s.Sources[1].Answered && !f.Consul.Leader {
		l.add(Critical, "source", Consul, "its servers have no leader: what it says may be old")
	}
	for _, n := range s.Nodes {
		if n.Nomad != nil {
			l.nomad(s, n)
		}
		if n.Consul != nil {
			l.consul(n)
		}
		for _, w := range n.Workers {
			l.worker(w)
		}
		if f.API.WorkersErr == nil && !f.API.Off && len(n.Workers) == 0 {
			l.silent(n)
		}
	}
	for _, j := range s.Jobs {
		switch {
		case j.Unplaced > 0:
			l.add(Critical, "job", j.Name, "no node takes %d of the %d that should run: %s", j.Unplaced, j.Desired, j.Why)
		case j.Desired == 0 && j.Type == nomad.JobTypeService:
			l.add(Critical, "job", j.Name, "none of it runs, or is to")
		}
	}
	for _, st := range s.Streams {
		l.stream(st)
	}
	slices.SortStableFunc(l.all, func(a, b Problem) int { return cmp.Compare(rank(a.Level), rank(b.Level)) })
	return l.all
}

func rank(level string) int {
	if level == Critical {
		return 0
	}
	return 1
}

func (l *list) nomad(s *Status, n Node) {
	switch {
	case n.Nomad.Status == nomad.NodeStatusReady:
	case slices.ContainsFunc(s.Nodes, func(o Node) bool {
		return o.Name == n.Name && o.Nomad != nil && o.Nomad.ID != n.Nomad.ID && o.Nomad.Status == nomad.NodeStatusReady
	}):
		l.add(Warning, "node", n.Name, "an earlier registration of it, %s, is %s; Nomad forgets it in time", shortID(n.Nomad.ID), n.Nomad.Status)
	default:
		l.add(Critical, "node", n.Name, "Nomad says that it is %s", n.Nomad.Status+because(n.Nomad.Description))
	}
	switch {
	case n.Nomad.Drain:
		l.add(Warning, "node", n.Name, "it drains: what runs there is moved or stopped, nothing new comes")
	case !n.Nomad.Eligible:
		l.add(Warning, "node", n.Name, "it is ineligible: nothing new comes (nomad node eligibility -enable)")
	}
	for _, d := range n.Nomad.Drivers {
		if !d.Healthy {
			l.add(Warning, "driver", n.Name+"/"+d.Name, "it is not healthy%s", because(d.Description))
		}
	}
	for _, a := range n.Nomad.Allocations {
		l.allocation(n, a)
	}
}

func (l *list) allocation(n Node, a Allocation) {
	name := fmt.Sprintf("%s on %s (%s)", a.Job, n.Name, shortID(a.ID))
	switch a.Status {
	case nomad.AllocClientStatusRunning:
		if a.Healthy != nil && !*a.Healthy {
			l.add(Critical, "allocation", name, "it runs, and its deployment found it unhealthy%s", because(a.Last))
		} else if a.Last != "" {
			l.add(Critical, "allocation", name, "a task of it does not run: %s", a.Last)
		}
	case nomad.AllocClientStatusPending:
		level, age := Warning, l.since(a.Since)
		if age >= pendingFor {
			level = Critical
		}
		l.add(level, "allocation", name, "it has been pending for %s%s", age, because(a.Last))
	default:
		l.add(Critical, "allocation", name, "it is %s%s", a.Status, because(a.Last))
	}
}

func (l *list) consul(n Node) {
	say := func(name string, checks []Check) {
		for _, c := range checks {
			level := Critical
			if c.Status == "warning" {
				level = Warning
			}
			l.add(level, "check", name, "%s is %s%s", c.Name, c.Status, because(c.Output))
		}
	}
	say(n.Name, n.Consul.Failing)
	for _, s := range n.Consul.Services {
		say(s.Name+" on "+n.Name, s.Failing)
	}
}

func (l *list) worker(w wire.Worker) {
	if !w.Ready {
		l.add(Critical, "worker", w.ID, "it is not ready%s", because(value(w.Reason)))
	}
	if w.Drain {
		l.add(Warning, "worker", w.ID, "it takes nothing new%s", because(value(w.DrainReason)))
	}
	if w.AgeSeconds >= oldReport {
		l.add(Critical, "worker", w.ID, "its last report is %.1f s old; two a second should come", w.AgeSeconds)
	}
	if w.ClockErrorMs != nil && math.Abs(*w.ClockErrorMs) > maxClockError {
		l.add(Critical, "worker", w.ID, "its clock is %.0f ms from Redis' clock, over %d: it takes no placements", *w.ClockErrorMs, maxClockError)
	}
	for _, d := range w.Devices {
		if !d.Usable {
			l.add(Warning, "device", w.ID+"/"+d.ID, "%s is not usable%s", d.Name, because(value(d.Reason)))
		}
	}
}

// silent is about a node that should have a worker, and none reports from there.
func (l *list) silent(n Node) {
	if n.Nomad != nil {
		for _, a := range n.Nomad.Allocations {
			if a.Job == workerJob && a.Status == nomad.AllocClientStatusRunning && l.since(a.Since) >= pendingFor {
				l.add(Critical, "worker", n.Name, "the job %s runs there, and no worker reports: it may not reach Redis", workerJob)
				return
			}
		}
	}
	if n.Consul != nil && slices.ContainsFunc(n.Consul.Services, func(s Service) bool { return s.Name == originService && s.Passing }) {
		l.add(Critical, "worker", n.Name, "its origin passes in Consul, and no worker reports: it may not reach Redis")
	}
}

func (l *list) stream(s wire.StreamStatus) {
	why := value(s.LastError)
	switch {
	case s.Broadcast != nil && s.Broadcast.WaitingSince != nil:
		l.add(Critical, "stream", s.Stream, "it has waited for capacity for %s%s", l.since(*s.Broadcast.WaitingSince), because(value(s.Broadcast.Reason)))
	case s.State == wire.StreamStateFailing:
		l.add(Critical, "stream", s.Stream, "its transcode fails%s", because(why))
	case s.State == wire.StreamStateWaiting && s.Broadcast != nil && l.since(s.Broadcast.StartedAt) >= unstarted:
		l.add(Critical, "stream", s.Stream, "it has a publisher and no run%s", because(why))
	case s.State == wire.StreamStateOffline && s.Broadcast == nil:
		l.add(Warning, "stream", s.Stream, "it has a publisher and no broadcast yet")
	}
	if s.Placement != nil && len(s.Placement.Dropped) > 0 {
		l.add(Warning, "stream", s.Stream, "it goes without %s for want of room", strings.Join(s.Placement.Dropped, ", "))
	}
}

// since is never negative: the other's clock may be ahead.
func (l *list) since(t time.Time) time.Duration { return max(0, l.now.Sub(t).Round(time.Second)) }

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// shortID is the part of an id that Nomad's own command shows.
func shortID(id string) string {
	if len(id) > 8 {
		return id[:8]
	}
	return id
}
