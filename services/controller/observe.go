package controller

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// nodeSeen is the last report of an ingest node.
type nodeSeen struct {
	report store.IngestReport
	at     time.Time
}

// workerSeen is the last report of a worker, kept past its expiry in Redis.
type workerSeen struct {
	report capacity.Report
	at     time.Time // of its last heartbeat, on our clock
	lost   bool
	lostAt time.Time // its last heartbeat when it was found lost
	probed time.Time
	drain  string                    // why it takes nothing new, "" when it does
	stops  bool                      // it drains because it stops
	load   map[string]placement.Load // of the view; kept to be filled again
}

// streamSeen is what the leader remembers of a stream.
type streamSeen struct {
	broadcast   *stream.Broadcast // as stored; nil until loaded or when there is none
	loaded      bool
	unsaved     bool      // the broadcast may be newer than what is stored
	publishedAt time.Time // when a publisher was last seen
	grace       time.Duration
	lost        bool      // state does not have it
	refusedAt   time.Time // when the reason for waiting was last written
	refusal     string    // the code that the history last named
	task        uint64    // the epoch whose task was enqueued
	toldAt      time.Time // when the history last said what refuses it
	noRoomSince time.Time // since when its worker has said that no device takes the source
	roomSince   time.Time // since when the whole profile of a degraded placement has had room
	movedTo     uint64    // the epoch at which it left a worker that drains, until that runs
	movedAt     time.Time
	stays       string // the code of why it can't leave a worker that drains
}

// publishing is a ready path at an ingest node.
type publishing struct {
	node store.IngestReport
	path store.IngestPath
}

// snapshot is one turn's view. The fleet's is the controller's, and is kept.
type snapshot struct {
	preempted  int // for how many streams room was made by preemption
	now        time.Time
	holding    bool // believe nobody gone
	settling   bool // commit nothing
	publishing map[string]publishing
	active     map[string]bool
	workers    map[string]*workerSeen
	runs       map[string]runSeen
	profiles   map[string]stream.Profile // those that were needed

	starts []start // tasks that are to be enqueued

	// What reconciling finds of the streams with a publisher.
	waiting []*waiter
	seats   []*seat
	placed  []placement.Placed // the seats; see allPlaced
	// head is the first that waits and has lost its patience; see placement.Line.
	head *placement.Head
}

// beatJitter is more than the time of one heartbeat, of which only the age is
// known, differs from turn to turn, and less than lies between two of them.
const beatJitter = 50 * time.Millisecond

// nodeGone is how long an ingest node's last report is believed after it
// expired in Redis: as long as mediamtx itself keeps a silent publisher.
const nodeGone = 10 * time.Second

func (c *Controller) observe(ctx context.Context) (*snapshot, error) {
	if err := c.watchDatabase(ctx, true); err != nil {
		return nil, err
	}
	now := c.now()
	s := &snapshot{now: now, holding: now.Before(c.holdUntil), publishing: map[string]publishing{}, active: map[string]bool{},
		workers: c.workers, profiles: map[string]stream.Profile{}}
	nodes, err := c.store.IngestReports(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the ingest reports: %w", err)
	}
	for _, r := range nodes {
		c.nodes[r.Node] = nodeSeen{report: r, at: now}
	}
	for name, n := range c.nodes {
		if now.Sub(n.at) > nodeGone {
			c.log.Warn("an ingest node reports no longer", "node", name)
			delete(c.nodes, name)
			continue
		}
		for _, p := range n.report.Paths {
			if !p.Ready {
				continue
			}
			// Two nodes may show one stream for a moment while a publisher moves:
			// the later session is the one that holds the claim.
			if old, ok := s.publishing[p.Stream]; !ok || p.ReadySince.After(old.path.ReadySince) {
				s.publishing[p.Stream] = publishing{node: n.report, path: p}
			}
		}
	}
	reports, err := c.store.Reports(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the workers' reports: %w", err)
	}
	for _, r := range reports {
		w, ok := c.workers[r.Worker]
		if !ok {
			w = &workerSeen{}
			c.workers[r.Worker] = w
		}
		at := now.Add(-r.Age)
		if w.lost && r.Age < c.cfg.Suspect && at.Sub(w.lostAt) > beatJitter {
			w.lost = false
			c.log.Info("a worker is back", "worker", r.Worker)
		}
		w.report, w.at = r.Report, at
		w.drain, w.stops = r.Draining(), r.Drain
		if w.drain == "" && c.cfg.Nodes != nil {
			w.drain = c.cfg.Nodes.Draining(r.NomadNode)
		}
		w.report.Drain = w.drain != ""
	}
	c.suspect(ctx, now, s.holding)
	if err := c.refreshView(ctx, now); err != nil {
		return nil, err
	}
	s.runs, s.settling = c.reported(), c.settling(now)
	active, err := c.store.ActiveStreams(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the active streams: %w", err)
	}
	for _, id := range active {
		s.active[id] = true
	}
	for id, st := range c.streams {
		if st.broadcast != nil && st.broadcast.State != stream.BroadcastEnded {
			s.active[id] = true
		}
	}
	c.m.workers.Set(float64(len(c.workers)))
	c.m.publishing.Set(float64(len(s.publishing)))
	return s, nil
}

// probeFor bounds the direct probes of a turn, which run all at once.
const probeFor = time.Second

// patience is the age of a heartbeat from which its worker is probed.
func (c *Controller) patience(w *workerSeen) time.Duration {
	if c.cfg.Nodes != nil && c.cfg.Nodes.Down(w.report.NomadNode) {
		return c.cfg.Suspect * 2 / 5
	}
	return c.cfg.Suspect
}

// suspect probes workers whose heartbeat is missing. A worker is lost when its
// origin does not answer either; one that answers has only lost Redis. Nothing is
// decided when ctx is over: no probe has been sent then, or none was waited for.
func (c *Controller) suspect(ctx context.Context, now time.Time, holding bool) {
	var ids []string
	for id, w := range c.workers {
		if !w.lost && !holding && now.Sub(w.at) >= c.patience(w) && now.Sub(w.probed) >= time.Second {
			ids = append(ids, id)
		}
	}
	pctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { errs[i] = c.probe(pctx, c.workers[id].report) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	for i, id := range ids {
		w, age := c.workers[id], now.Sub(c.workers[id].at).Round(time.Millisecond)
		w.probed = now
		if errs[i] == nil {
			c.log.Warn("a worker sends no heartbeat, but its origin answers: left where it is", "worker", id, "age", age)
			continue
		}
		w.lost, w.lostAt = true, w.at
		c.m.lost.Inc()
		c.log.Error("a worker is lost: no heartbeat, and its origin does not answer", "worker", id, "age", age, "error", errs[i])
	}
}

// streams returns every id that has something to decide, in order.
func (s *snapshot) streams() []string {
	ids := make([]string, 0, len(s.publishing)+len(s.active))
	for id := range s.publishing {
		ids = append(ids, id)
	}
	for id := range s.active {
		if _, ok := s.publishing[id]; !ok {
			ids = append(ids, id)
		}
	}
	sort.Strings(ids)
	return ids
}
