package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"

	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/services/task"
)

// waiter is a live broadcast that has no placement which works, or is to get
// another one.
type waiter struct {
	st   *streamSeen
	conf stream.Stream
	src  stream.Source
	old  stream.Placement // of Epoch 0 when there is none
	req  placement.Request
	// evict are the placements that its commit ends.
	evict []store.Evicted
	// noRoom: old stands, but its worker has no room for what the source costs.
	noRoom bool
}

// seat is a live broadcast with a placement that is as it should be.
type seat struct {
	st   *streamSeen
	conf stream.Stream
	p    stream.Placement
}

// place makes sure that a live broadcast has a placement at a worker that can
// hold it, and that the placement pulls the present session. Those that need
// another one are left to serveQueue.
func (c *Controller) place(ctx context.Context, s *snapshot, st *streamSeen, cur store.State, pub publishing) error {
	conf := cur.Stream
	src := stream.Source{Node: pub.node.Node, Session: pub.path.Session, Protocol: pub.path.Protocol, Tracks: pub.path.Tracks,
		RTMP: "rtmp://" + pub.node.RTMP + "/live/" + conf.ID, RTSP: "rtsp://" + pub.node.RTSP + "/live/" + conf.ID}
	p, err := cur.Placement, cur.PlacementErr
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		return fmt.Errorf("reading the placement: %w", err)
	}
	// A run was read before the placement: a higher epoch than the placement's is
	// one that Redis has lost, and the run goes on only if it is placed again.
	lost := s.runs[conf.ID].epoch > p.Epoch
	current := err == nil && !lost && p.Broadcast == st.broadcast.ID && p.State == stream.PlacementPlaced
	sits := current && !s.gone(p)
	noRoom := sits && c.noRoom(ctx, s, st, p)
	if sits && !noRoom {
		s.seats = append(s.seats, &seat{st: st, conf: conf, p: p})
		return c.keep(ctx, s, st, p, src)
	}
	if s.settling || (s.holding && !lost && p.State == stream.PlacementPlaced) {
		return nil // its worker may only not have reported yet
	}
	if err == nil && !lost && p.State != stream.PlacementEnded && !current && !s.gone(p) {
		// The broadcast before this one is still being closed at its worker.
		if p.State == stream.PlacementPlaced {
			return c.store.SetEnding(ctx, conf.ID, p.Epoch)
		}
		return nil
	}
	w := &waiter{st: st, conf: conf, src: src, old: p, noRoom: noRoom}
	if w.req, err = c.request(ctx, s, conf, p); err != nil {
		return c.wait(ctx, st, false, "profile", err.Error())
	}
	// Somebody may be watching what ran until now, or still runs.
	w.req.Failover = (current && !noRoom) || lost
	w.req.Stay = ""
	switch {
	case lost:
		w.req.Stay = s.runs[conf.ID].worker
	case p.Broadcast == st.broadcast.ID:
		w.req.Stay = p.Worker
	}
	if noRoom && s.covers(p, w.req.Media) {
		w.req.Avoid = []string{p.Worker}
	}
	s.waiting = append(s.waiting, w)
	return nil
}

// keep looks after a placement that is as it should be.
func (c *Controller) keep(ctx context.Context, s *snapshot, st *streamSeen, p stream.Placement, src stream.Source) error {
	if p.Source.Session != src.Session || p.Source.Node != src.Node {
		if err := c.store.UpdateSource(ctx, p.Stream, p.Epoch, src); err != nil {
			return fmt.Errorf("pointing the placement at the new session: %w", err)
		}
		c.notify(ctx, p.Stream)
	}
	if st.task < p.Epoch {
		s.starts = append(s.starts, start{st, p})
	}
	return c.served(ctx, st)
}

// request is what is asked for a stream now, by its settings and its whole
// profile. A former placement's reservations do not count against it.
func (c *Controller) request(ctx context.Context, s *snapshot, conf stream.Stream, old stream.Placement) (placement.Request, error) {
	prof, err := c.profile(ctx, s, conf.Profile)
	if err != nil {
		return placement.Request{}, err
	}
	return placement.Request{Stream: conf.ID, Profile: prof, Media: c.media(ctx, s, conf.ID), Require: conf.Require, Prefer: conf.Prefer, Priority: conf.Priority,
		Degrade: conf.Degrade, Own: c.own(old)}, nil
}

// decide asks for the best device.
func (c *Controller) decide(r placement.Request) (placement.Decision, error) {
	start := c.now()
	d, err := placement.Decide(c.view, r)
	c.m.decision.Observe(c.now().Sub(start).Seconds())
	return d, err
}

// commitAs says what a commit is in the stream's history.
type commitAs struct {
	result string // of the metric
	event  string
	why    string // before the text of the event
}

func (w *waiter) as() commitAs {
	switch {
	case w.old.Epoch == 0 || w.old.Broadcast != w.st.broadcast.ID:
		return commitAs{"committed", "placement.committed", "placed"}
	case w.old.State == stream.PlacementEnded:
		return commitAs{"committed", "placement.committed", "placed again"}
	case w.noRoom:
		return commitAs{"moved", "placement.moved", "worker " + w.old.Worker + " has no room for what the source costs; placed anew"}
	}
	return commitAs{"moved", "placement.moved", "placed anew"}
}

// commit makes a decision so, enqueues the start, and brings the view up to
// date. Its errors wrap stream.ErrConflict or stream.ErrNoRoom when it was outrun.
func (c *Controller) commit(ctx context.Context, s *snapshot, w *waiter, d placement.Decision, as commitAs) error {
	id := w.conf.ID
	if err := c.raiseEpoch(ctx, s, id, w.old.Epoch); err != nil {
		return err
	}
	p := stream.Placement{Stream: id, Broadcast: w.st.broadcast.ID, Worker: d.Worker, Device: d.Device, Boot: d.Boot,
		Price: d.Reserved[0].Amount, Reserved: d.Reserved, State: stream.PlacementPlaced, Source: w.src, Profile: d.Profile, Dropped: d.Dropped,
		Priority: w.conf.Priority, Require: w.conf.Require, Grace: w.conf.Grace, HoldBack: w.conf.HoldBack, Window: w.conf.Window,
		BroadcastStart: w.st.broadcast.StartedAt, CommittedAt: c.now().UTC()}
	epoch, err := c.store.Commit(ctx, store.Proposal{Placement: p, Limits: d.Limits, ExpectEpoch: w.old.Epoch, Evict: w.evict})
	if err != nil {
		return fmt.Errorf("committing the placement: %w", err)
	}
	p.Epoch = epoch
	c.state.epochs[id] = given{epoch, c.now()}
	c.view.Return(w.req.Own)
	c.view.Apply(d)
	c.m.placements.WithLabelValues(as.result).Inc()
	c.event(ctx, id, "info", as.event, as.why+" "+describe(p))
	c.notify(ctx, id)
	c.enqueue(ctx, w.st, p)
	w.st.roomSince = time.Time{}
	return c.served(ctx, w.st)
}

// describe says where a placement is and what it takes.
func describe(p stream.Placement) string {
	text := fmt.Sprintf("on %s/%s at epoch %d: %d px/s reserved", p.Worker, p.Device, p.Epoch, p.Price)
	if len(p.Dropped) > 0 {
		var names []string
		for _, v := range p.Dropped {
			names = append(names, v.Name)
		}
		text += "; without " + strings.Join(names, ", ") + " for want of room"
	}
	return text
}

// enqueue puts the start task on the worker's queue. A failure is only logged:
// the worker reconciles by itself, and the next turn tries again.
func (c *Controller) enqueue(ctx context.Context, st *streamSeen, p stream.Placement) {
	t, err := task.NewStart(p.Worker, task.Start{Stream: p.Stream, Epoch: p.Epoch})
	if err == nil {
		_, err = c.tasks.EnqueueContext(ctx, t)
	}
	if err != nil && !errors.Is(err, asynq.ErrTaskIDConflict) && !errors.Is(err, asynq.ErrDuplicateTask) {
		c.log.Warn("enqueuing the start task failed", "stream", p.Stream, "epoch", p.Epoch, "error", err)
		return
	}
	st.task = p.Epoch
}

// start is a placement whose start task was not enqueued yet, for all that this
// leader knows: that of every placement, when it begins to lead.
type start struct {
	st *streamSeen
	p  stream.Placement
}

// enqueuers is how many tasks are enqueued at once: each is a round trip.
const enqueuers = 16

// enqueueStarts enqueues what was collected.
func (c *Controller) enqueueStarts(ctx context.Context, s *snapshot) {
	next := make(chan start)
	var all sync.WaitGroup
	for range min(enqueuers, len(s.starts)) {
		all.Go(func() {
			for t := range next {
				c.enqueue(ctx, t.st, t.p)
			}
		})
	}
	for _, t := range s.starts {
		next <- t
	}
	close(next)
	all.Wait()
	s.starts = s.starts[:0]
}
