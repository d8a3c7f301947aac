package controller

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// maxPreempt bounds how many of the queue are looked at for preemption in a turn.
const maxPreempt = 32

// serveQueue places what waits, in its order, as far as there is room. What is
// left waits on, the first QueueLimit of it in the queue.
func (c *Controller) serveQueue(ctx context.Context, s *snapshot) {
	left, preempts := 0, 0
	var oldest time.Time
	for _, w := range c.lineUp(s) {
		if !c.leading(ctx) {
			return
		}
		err := c.admit(ctx, s, w)
		if errors.Is(err, stream.ErrNoRoom) && c.cfg.Preempt && preempts < maxPreempt {
			preempts++
			var done bool
			if done, err = c.preempt(ctx, s, w, err); done {
				continue
			}
		}
		code := refusalCode(err)
		if code == "" {
			c.try(w.conf.ID, err)
			continue
		}
		if code == "rules" { // no capacity would help it
			c.try(w.conf.ID, c.wait(ctx, w.st, false, code, err.Error()))
			continue
		}
		if w.noRoom && code != "conflict" {
			c.try(w.conf.ID, c.giveUp(ctx, w))
		}
		queued, text := w.st.broadcast.WaitingSince != nil || left < c.cfg.QueueLimit, err.Error()
		if left++; left > c.cfg.QueueLimit {
			code, text = "queue_limit", fmt.Sprintf("%d streams wait for capacity already, the queue's limit; it takes a place when one is free: %s", c.cfg.QueueLimit, text)
		}
		c.try(w.conf.ID, c.wait(ctx, w.st, queued, code, text))
		if since := w.st.broadcast.WaitingSince; since != nil && (oldest.IsZero() || since.Before(oldest)) {
			oldest = *since
		}
	}
	c.m.queue.Set(float64(min(left, c.cfg.QueueLimit)))
	c.m.oldest.Set(0)
	if !oldest.IsZero() {
		c.m.oldest.Set(max(0, s.now.Sub(oldest).Seconds()))
	}
}

// lineUp orders what waits: first those that lost their worker, which may be
// watched, then by priority and age. See placement.Line.
func (c *Controller) lineUp(s *snapshot) []*waiter {
	byStream := make(map[string]*waiter, len(s.waiting))
	var moved, others []placement.Waiting
	for _, w := range s.waiting {
		byStream[w.conf.ID] = w
		e := placement.Waiting{Request: w.req, Since: w.since(s.now)}
		if w.req.Failover {
			moved = append(moved, e)
		} else {
			others = append(others, e)
		}
	}
	list := make([]*waiter, 0, len(s.waiting))
	for _, e := range append(placement.Order(moved), placement.Line(c.view, others, s.now, c.cfg.Patience)...) {
		w := byStream[e.Request.Stream]
		if w.req = e.Request; w.req.Behind != nil {
			s.head = w.req.Behind
		}
		list = append(list, w)
	}
	return list
}

// since is since when it waits, for its place in the queue.
func (w *waiter) since(now time.Time) time.Time {
	switch {
	case w.st.broadcast.WaitingSince != nil:
		return *w.st.broadcast.WaitingSince
	case w.old.Broadcast == w.st.broadcast.ID:
		return now
	}
	return w.st.broadcast.StartedAt
}

// admit decides and commits. When it is outrun, by another replica or by a
// worker that fell back to another device, it looks again, once.
func (c *Controller) admit(ctx context.Context, s *snapshot, w *waiter) error {
	d, err := c.decide(w.req)
	if err != nil {
		return err
	}
	err = c.commit(ctx, s, w, d, w.as())
	taken := errors.Is(err, stream.ErrNoRoom)
	if !taken && !errors.Is(err, stream.ErrConflict) {
		return err
	}
	c.m.placements.WithLabelValues("conflict").Inc()
	if err := c.refreshView(ctx, c.now()); err != nil {
		return err
	}
	p, err := c.store.Placement(ctx, w.conf.ID)
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		return fmt.Errorf("reading the placement: %w", err)
	}
	if p.Epoch < w.old.Epoch {
		return fmt.Errorf("the placement of epoch %d is gone, there is one of epoch %d: Redis state was replaced", w.old.Epoch, p.Epoch)
	}
	if p.Epoch != w.old.Epoch && p.State == stream.PlacementPlaced {
		return nil // somebody has placed it; the next turn looks at that
	}
	w.old, w.req.Own = p, c.own(p)
	if taken {
		w.req.Avoid = append(w.req.Avoid, d.Worker+"/"+d.Device)
	}
	if d, err = c.decide(w.req); err != nil {
		return err
	}
	return c.commit(ctx, s, w, d, w.as())
}

// refusalCode names what refused a stream, for metrics; "" for an error that is
// no refusal.
func refusalCode(err error) string {
	var no *placement.NoRoomError
	var outrun *store.NoRoomError
	switch {
	case errors.As(err, &no) && len(no.Telling) == 0:
		return "no_worker"
	case errors.As(err, &no):
		return no.Telling[0].Reason.String()
	case errors.As(err, &outrun), errors.Is(err, stream.ErrConflict):
		return "conflict"
	case errors.Is(err, stream.ErrInvalid):
		return "rules"
	}
	return ""
}

// How often a stream's reason for waiting is renewed at most, for the numbers in
// it change all the time, and how long it may be in bytes.
const (
	refusalEvery = 5 * time.Second
	tellEvery    = time.Minute // what refuses it: in its history
	maxReason    = 2000
)

// wait records why a stream is not placed; queued says that it has a place in
// the queue. The history gets an entry when the wait begins, and at most once a
// minute when something else refuses it than the last entry says.
func (c *Controller) wait(ctx context.Context, st *streamSeen, queued bool, code, reason string) error {
	b := *st.broadcast
	begins := queued && b.WaitingSince == nil
	if !begins && c.now().Sub(st.refusedAt) < refusalEvery {
		return nil
	}
	other := begins || (code != st.refusal && c.now().Sub(st.toldAt) >= tellEvery)
	if other {
		st.refusal, st.toldAt = code, c.now()
		c.m.refusals.WithLabelValues(code).Inc()
		c.m.placements.WithLabelValues("refused").Inc()
	}
	st.refusedAt = c.now()
	if begins {
		now := c.now().UTC()
		b.WaitingSince = &now
	}
	if reason = clip(reason, maxReason); !begins && reason == b.Reason {
		return nil
	}
	b.Reason = reason
	if err := c.putBroadcast(ctx, st, b); err != nil {
		return err
	}
	if other {
		c.event(ctx, b.Stream, "warn", "placement.waiting", reason)
	}
	return nil
}

// served ends a stream's wait.
func (c *Controller) served(ctx context.Context, st *streamSeen) error {
	if st.broadcast.Reason == "" && st.broadcast.WaitingSince == nil {
		return nil
	}
	b := *st.broadcast
	b.Reason, b.WaitingSince = "", nil
	st.refusal, st.refusedAt, st.toldAt = "", time.Time{}, time.Time{}
	return c.putBroadcast(ctx, st, b)
}

// clip cuts a text at so many bytes, between two characters.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	cut := most - len("…")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
