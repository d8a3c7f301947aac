package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"

	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/services/task"
)

// place makes sure that a live broadcast has a placement at a worker that can
// hold it, and that the placement pulls the present session.
func (c *Controller) place(ctx context.Context, s *snapshot, st *streamSeen, conf stream.Stream, pub publishing) error {
	src := stream.Source{Node: pub.node.Node, Session: pub.path.Session, Protocol: pub.path.Protocol, Tracks: pub.path.Tracks,
		RTMP: "rtmp://" + pub.node.RTMP + "/live/" + conf.ID, RTSP: "rtsp://" + pub.node.RTSP + "/live/" + conf.ID}
	p, err := c.store.Placement(ctx, conf.ID)
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		return fmt.Errorf("reading the placement: %w", err)
	}
	current := err == nil && p.Broadcast == st.broadcast.ID && p.State == stream.PlacementPlaced
	if current && !s.gone(p) {
		if p.Source.Session != src.Session || p.Source.Node != src.Node {
			if err := c.store.UpdateSource(ctx, conf.ID, p.Epoch, src); err != nil {
				return fmt.Errorf("pointing the placement at the new session: %w", err)
			}
			c.notify(ctx, conf.ID)
		}
		if st.task < p.Epoch {
			c.enqueue(ctx, st, p)
		}
		return nil
	}
	if s.holding && err == nil && p.State == stream.PlacementPlaced {
		return nil // its worker may only not have reported yet
	}
	if err == nil && p.State != stream.PlacementEnded && !current && !s.gone(p) {
		// The broadcast before this one is still being closed at its worker.
		if p.State == stream.PlacementPlaced {
			return c.store.SetEnding(ctx, conf.ID, p.Epoch)
		}
		return nil
	}
	return c.decide(ctx, s, st, conf, src, p)
}

// decide chooses a device, commits the reservation and enqueues the start.
func (c *Controller) decide(ctx context.Context, s *snapshot, st *streamSeen, conf stream.Stream, src stream.Source, old stream.Placement) error {
	prof, err := c.store.GetProfile(ctx, conf.Profile)
	if err != nil {
		return c.waiting(ctx, st, conf.ID, fmt.Sprintf("profile %q: %v", conf.Profile, err))
	}
	view := placement.Snapshot{}
	own := placement.Own{}
	if old.State != stream.PlacementEnded {
		own.Worker = old.Worker // the commit moves the stream's own reservation; it must not count twice
	}
	for id, w := range s.workers {
		ledger, err := c.store.Ledger(ctx, id)
		if err != nil {
			return fmt.Errorf("reading the ledger of %s: %w", id, err)
		}
		if own.Worker == id {
			for resource, streams := range ledger {
				if held, ok := streams[conf.ID]; ok {
					own.Young = own.Young || s.now.Sub(held.At) < stream.RampHold
					own.Reserved = append(own.Reserved, stream.Reservation{Resource: resource, Amount: held.Amount})
				}
			}
		}
		view.Workers = append(view.Workers, placement.Worker{Report: w.report, Lost: w.lost, HeartbeatAge: s.now.Sub(w.at), Ledger: loads(ledger, s.now)})
	}
	d, err := placement.Decide(&view, placement.Request{Stream: conf.ID, Profile: prof, Require: conf.Require, Prefer: conf.Prefer,
		Priority: conf.Priority, Degrade: conf.Degrade, Failover: old.State == stream.PlacementPlaced, Stay: old.Worker, Own: own})
	if err != nil {
		c.m.placements.WithLabelValues("refused").Inc()
		return c.waiting(ctx, st, conf.ID, err.Error())
	}
	w := s.workers[d.Worker].report
	p := stream.Placement{Stream: conf.ID, Broadcast: st.broadcast.ID, Worker: d.Worker, Device: d.Device, Boot: w.Boot,
		Price: d.Reserved[0].Amount, Reserved: d.Reserved, State: stream.PlacementPlaced, Source: src, Profile: d.Profile, Dropped: d.Dropped,
		Priority: conf.Priority, Grace: conf.Grace, HoldBack: conf.HoldBack, Window: conf.Window, BroadcastStart: st.broadcast.StartedAt, CommittedAt: c.now().UTC()}
	epoch, err := c.store.Commit(ctx, store.Proposal{Placement: p, Limits: d.Limits, ExpectEpoch: old.Epoch})
	switch {
	case errors.Is(err, stream.ErrConflict), errors.Is(err, stream.ErrNoRoom):
		c.m.placements.WithLabelValues("conflict").Inc()
		return c.waiting(ctx, st, conf.ID, err.Error())
	case err != nil:
		return fmt.Errorf("committing the placement: %w", err)
	}
	p.Epoch = epoch
	if st.broadcast.Reason != "" {
		nb := *st.broadcast
		nb.Reason = ""
		if err := c.store.PutBroadcast(ctx, nb); err == nil {
			st.broadcast = &nb
		}
	}
	result, typ := "committed", "placement.committed"
	if old.Epoch != 0 && old.Broadcast == p.Broadcast {
		result, typ = "moved", "placement.moved"
	}
	c.m.placements.WithLabelValues(result).Inc()
	c.event(ctx, conf.ID, "info", typ, fmt.Sprintf("placed on %s/%s at epoch %d: %d px/s reserved", p.Worker, p.Device, epoch, p.Price))
	c.notify(ctx, conf.ID)
	c.enqueue(ctx, st, p)
	return nil
}

// loads sums a worker's ledger up by resource.
func loads(ledger map[string]map[string]store.Held, now time.Time) map[string]placement.Load {
	out := make(map[string]placement.Load, len(ledger))
	for resource, streams := range ledger {
		l := placement.Load{Streams: len(streams)}
		for _, held := range streams {
			l.Reserved += held.Amount
			if now.Sub(held.At) < stream.RampHold {
				l.Young += held.Amount
			}
		}
		out[resource] = l
	}
	return out
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

// refusalEvery bounds how often a stream's reason for waiting is renewed: the
// numbers in it change all the time.
const refusalEvery = 5 * time.Second

// waiting records, once per reason, why a stream is not placed.
func (c *Controller) waiting(ctx context.Context, st *streamSeen, id, reason string) error {
	if st.broadcast.Reason == reason || c.now().Sub(st.refusedAt) < refusalEvery {
		return nil
	}
	st.refusedAt = c.now()
	nb := *st.broadcast
	nb.Reason = reason
	return c.saveBroadcast(ctx, st, nb, "warn", "placement.waiting", reason)
}
