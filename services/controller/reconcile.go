package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// reconcile brings one stream to where it should be.
//
//	broadcast:  (none) ─publisher─▶ live ⇄ grace ─grace over─▶ ended
//	placement:  (none) ─commit─▶ placed ─broadcast ended─▶ ending ─worker─▶ ended
//	                       ▲      │  │                                        ▲
//	                       └──────┘  └── preempted: the broadcast waits on ───┘
//	                      epoch + 1: worker lost or restarted, epoch lost by Redis,
//	                                 restored, rebalanced, worker drains
func (c *Controller) reconcile(ctx context.Context, s *snapshot, id string, cur store.State) error {
	st, err := c.seen(id, cur)
	if err != nil {
		return err
	}
	if st.unsaved {
		if err := c.putBroadcast(ctx, st, *st.broadcast); err != nil {
			return err
		}
	}
	conf, err := cur.Stream, cur.StreamErr
	pub, isPublishing := s.publishing[id]
	since := publishedSince(pub, isPublishing, st.broadcast)
	deleted, lost := stream.Deleted(err, since), stream.Lost(err, since)
	if err != nil && !deleted && !lost {
		return fmt.Errorf("reading the stream: %w", err)
	}
	if deleted || conf.Disabled {
		isPublishing = false // the ingest agent is told to kick it
	}
	if lost && isPublishing {
		c.unknown(id, st)
		st.publishedAt = s.now
		return nil
	}
	if err == nil {
		st.grace, st.lost = conf.Grace.Duration(), false
	}
	if isPublishing {
		st.publishedAt = s.now
		if err := c.publishing(ctx, st, conf, pub); err != nil {
			return err
		}
		return c.place(ctx, s, st, cur, pub)
	}
	grace := st.grace
	if deleted || conf.Disabled {
		grace = 0
	}
	return c.absent(ctx, s, st, id, cur, grace)
}

// publishedSince is when the stream's publisher, or the last that its broadcast had,
// became ready; zero when that is not known.
func publishedSince(pub publishing, isPublishing bool, b *stream.Broadcast) time.Time {
	switch {
	case isPublishing:
		return pub.path.ReadySince
	case b != nil && b.Session != nil:
		return b.Session.StartedAt
	}
	return time.Time{}
}

// unknown is a stream with a publisher that nobody has deleted, and that state does
// not have: it was lost with it. Nothing can be decided for it until it is restored,
// or created again; its broadcast and its run go on.
func (c *Controller) unknown(id string, st *streamSeen) {
	if !st.lost {
		c.log.Warn("Redis state does not have a stream that is being published; it goes on as it is until it is restored or created again", "stream", id)
	}
	st.lost = true
}

// seen takes what is stored of a stream's broadcast once per leadership.
func (c *Controller) seen(id string, cur store.State) (*streamSeen, error) {
	st, ok := c.streams[id]
	if !ok {
		st = &streamSeen{publishedAt: c.now(), grace: stream.DefaultGrace}
		c.streams[id] = st
	}
	if st.loaded {
		return st, nil
	}
	switch err := cur.BroadcastErr; {
	case errors.Is(err, stream.ErrNotFound):
	case err != nil:
		return nil, fmt.Errorf("reading the broadcast: %w", err)
	default:
		st.broadcast = &cur.Broadcast
	}
	st.loaded = true
	return st, nil
}

// publishing starts or continues the broadcast of a stream that is being sent.
func (c *Controller) publishing(ctx context.Context, st *streamSeen, conf stream.Stream, pub publishing) error {
	sess := &stream.Session{ID: pub.path.Session, Stream: conf.ID, Node: pub.node.Node, Protocol: pub.path.Protocol,
		Remote: pub.path.Remote, Tracks: pub.path.Tracks, StartedAt: pub.path.ReadySince}
	b := st.broadcast
	switch {
	case b == nil || b.State == stream.BroadcastEnded:
		nb := stream.Broadcast{ID: uuid.NewString(), Stream: conf.ID, State: stream.BroadcastLive, StartedAt: c.now().UTC(), Session: sess}
		return c.saveBroadcast(ctx, st, nb, "info", "broadcast.started", fmt.Sprintf("a publisher sends by %s at node %s: %s",
			sess.Protocol, sess.Node, strings.Join(sess.Tracks, ", ")))
	case b.Session == nil || b.Session.ID != sess.ID || b.State == stream.BroadcastGrace:
		nb := *b
		nb.State, nb.Session = stream.BroadcastLive, sess
		return c.saveBroadcast(ctx, st, nb, "info", "session.resumed", fmt.Sprintf("the publisher is back by %s at node %s: the broadcast goes on",
			sess.Protocol, sess.Node))
	}
	return nil
}

// absent handles a stream with something left and no publisher.
func (c *Controller) absent(ctx context.Context, s *snapshot, st *streamSeen, id string, cur store.State, grace time.Duration) error {
	if b := st.broadcast; b != nil && b.State != stream.BroadcastEnded && !s.holding {
		away := s.now.Sub(st.publishedAt)
		if b.State == stream.BroadcastLive {
			nb := *b
			nb.State, nb.Reason, nb.WaitingSince = stream.BroadcastGrace, "", nil
			if err := c.saveBroadcast(ctx, st, nb, "info", "session.ended", fmt.Sprintf("the publisher is gone; it may return within %s", grace)); err != nil {
				return err
			}
		}
		if away >= grace {
			nb, end := *st.broadcast, c.now().UTC()
			nb.State, nb.EndedAt, nb.Reason, nb.WaitingSince = stream.BroadcastEnded, &end, "", nil
			if err := c.saveBroadcast(ctx, st, nb, "info", "broadcast.ended", fmt.Sprintf("no publisher for %s", grace)); err != nil {
				return err
			}
		}
	}
	return c.finish(ctx, s, st, id, cur)
}

// finish ends the placement of a broadcast that is over.
func (c *Controller) finish(ctx context.Context, s *snapshot, st *streamSeen, id string, cur store.State) error {
	if st.broadcast != nil && st.broadcast.State != stream.BroadcastEnded {
		return nil
	}
	p, err := cur.Placement, cur.PlacementErr
	if errors.Is(err, stream.ErrNotFound) || (err == nil && p.State == stream.PlacementEnded) {
		delete(c.streams, id) // nothing is left to remember
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the placement: %w", err)
	}
	if p.State == stream.PlacementPlaced {
		if err := c.store.SetEnding(ctx, id, p.Epoch); err != nil {
			return fmt.Errorf("ending the placement: %w", err)
		}
		c.notify(ctx, id)
		return nil
	}
	// The worker ends the playlists and returns the reservation. One that is
	// lost, or has started again, no longer can.
	if !s.gone(p) {
		return nil
	}
	if err := c.store.EndTail(ctx, id, p.Epoch); err != nil {
		c.log.Warn("marking the playlists' end failed", "stream", id, "error", err)
	}
	if err := c.store.Release(ctx, id, p.Epoch); err != nil {
		return fmt.Errorf("returning the reservation: %w", err)
	}
	c.event(ctx, id, "warn", "placement.released", "the worker "+p.Worker+" is gone; its reservation was returned")
	return nil
}

// gone reports whether a placement's worker can't hold it any more: it is
// lost, or it runs under another boot id.
func (s *snapshot) gone(p stream.Placement) bool {
	w, ok := s.workers[p.Worker]
	if !ok {
		return !s.holding
	}
	return w.lost || w.report.Boot != p.Boot
}

func (c *Controller) saveBroadcast(ctx context.Context, st *streamSeen, b stream.Broadcast, level, event, msg string) error {
	if err := c.putBroadcast(ctx, st, b); err != nil {
		return err
	}
	c.event(ctx, b.Stream, level, event, msg)
	c.notify(ctx, b.Stream)
	return nil
}

func (c *Controller) putBroadcast(ctx context.Context, st *streamSeen, b stream.Broadcast) error {
	if err := c.store.PutBroadcast(ctx, b); err != nil {
		return fmt.Errorf("writing the broadcast: %w", err)
	}
	st.broadcast, st.unsaved = &b, false
	return nil
}

func (c *Controller) event(ctx context.Context, id, level, typ, msg string) {
	c.log.Info(msg, "stream", id, "event", typ)
	if err := c.store.AddEvent(ctx, stream.Event{Stream: id, Time: c.now().UTC(), Type: typ, Level: level, Message: msg}); err != nil {
		c.log.Debug("writing an event failed", "stream", id, "error", err)
	}
}

func (c *Controller) notify(ctx context.Context, id string) {
	if err := c.store.Notify(ctx, id); err != nil {
		c.log.Debug("notifying failed; the others find out by polling", "stream", id, "error", err)
	}
}
