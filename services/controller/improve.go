package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// placed is a seat as services/placement looks at it.
func (c *Controller) placed(ctx context.Context, s *snapshot, e *seat) (placement.Placed, error) {
	r, err := c.request(ctx, s, e.conf, e.p)
	if err != nil {
		return placement.Placed{}, err
	}
	r.Behind = s.head
	return placement.Placed{Request: r, Worker: e.p.Worker, Device: e.p.Device, Reserved: e.p.Reserved, Degraded: len(e.p.Dropped) > 0,
		Age: s.now.Sub(latest(e.p.CommittedAt, e.p.MovedAt))}, nil
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// allPlaced are the seats of which that can be said; they are collected once a
// turn.
func (c *Controller) allPlaced(ctx context.Context, s *snapshot) []placement.Placed {
	if s.placed != nil {
		return s.placed
	}
	s.placed = make([]placement.Placed, 0, len(s.seats))
	for _, e := range s.seats {
		if p, err := c.placed(ctx, s, e); err == nil {
			s.placed = append(s.placed, p)
		}
	}
	return s.placed
}

func (s *snapshot) seat(id string) *seat {
	i := slices.IndexFunc(s.seats, func(e *seat) bool { return e.conf.ID == id })
	if i < 0 {
		return nil
	}
	return s.seats[i]
}

// leave takes a stream's seat out of what is placed.
func (s *snapshot) leave(id string) {
	s.seats = slices.DeleteFunc(s.seats, func(e *seat) bool { return e.conf.ID == id })
	s.placed = slices.DeleteFunc(s.placed, func(p placement.Placed) bool { return p.Request.Stream == id })
}

// again places a seat's stream anew, at the next epoch. Being outrun is no
// error: what was placed stays.
func (c *Controller) again(ctx context.Context, s *snapshot, e *seat, own placement.Own, d placement.Decision, as commitAs) (bool, error) {
	w := &waiter{st: e.st, conf: e.conf, src: e.p.Source, old: e.p, req: placement.Request{Own: own}}
	err := c.commit(ctx, s, w, d, as)
	if errors.Is(err, stream.ErrNoRoom) || errors.Is(err, stream.ErrConflict) {
		c.m.placements.WithLabelValues("conflict").Inc()
		return false, nil
	}
	return err == nil, err
}

// restore gives degraded streams their whole profile when there has been room
// for it for a while.
func (c *Controller) restore(ctx context.Context, s *snapshot) {
	degraded := 0
	var moved []string
	for _, e := range s.seats {
		if len(e.p.Dropped) == 0 {
			continue
		}
		degraded++
		if s.holding || s.settling || s.now.Sub(e.p.CommittedAt) < c.cfg.RestoreEvery || !c.leading(ctx) {
			continue
		}
		p, err := c.placed(ctx, s, e)
		if err != nil {
			continue
		}
		d, ok := placement.Restore(c.view, p)
		switch {
		case !ok:
			e.st.roomSince = time.Time{}
			continue
		case e.st.roomSince.IsZero():
			e.st.roomSince = s.now
		}
		if s.now.Sub(e.st.roomSince) < c.cfg.RestoreAfter {
			continue
		}
		e.st.roomSince = time.Time{}
		done, err := c.again(ctx, s, e, p.Request.Own, d, commitAs{"restored", "placement.restored", "there is room for the whole profile again:"})
		c.try(e.conf.ID, err)
		if done {
			degraded--
			moved = append(moved, e.conf.ID)
		}
	}
	for _, id := range moved {
		s.leave(id)
	}
	c.m.degraded.Set(float64(degraded))
}

// maxPreempted is for how many streams a turn makes room by preemption.
const maxPreempted = 8

// preempt makes room for a stream by ending placements of lower priority, if
// that is enough, in the commit that takes it; refused is why it has no room without. Their broadcasts go on
// and wait: the end of a placement that was not told to end its playlists leaves
// them open, and its worker stops the run.
func (c *Controller) preempt(ctx context.Context, s *snapshot, w *waiter, refused error) (done bool, err error) {
	lower := slices.ContainsFunc(s.seats, func(e *seat) bool { return e.conf.Priority < w.conf.Priority })
	if !lower {
		return false, refused
	}
	if _, _, ok := placement.Preempt(c.view, c.allPlaced(ctx, s), w.req); !ok || s.preempted >= maxPreempted {
		return false, refused
	}
	// Nobody is to go because of what has changed since the turn began.
	if err := c.refreshView(ctx, c.now()); err != nil {
		return false, err
	}
	victims, d, ok := placement.Preempt(c.view, c.allPlaced(ctx, s), w.req)
	if !ok {
		return false, refused
	}
	s.preempted++
	var seats []*seat
	for _, v := range victims {
		e := s.seat(v.Request.Stream)
		if e == nil {
			return false, refused
		}
		seats = append(seats, e)
		w.evict = append(w.evict, store.Evicted{Stream: e.conf.ID, Epoch: e.p.Epoch})
	}
	err = c.commit(ctx, s, w, d, w.as())
	w.evict = nil
	if err == nil {
		for _, e := range seats {
			c.try(e.conf.ID, c.parked(ctx, s, e, w.conf))
		}
	}
	if errors.Is(err, stream.ErrNoRoom) || errors.Is(err, stream.ErrConflict) {
		err = c.admit(ctx, s, w) // outrun: with the room that is free now, if it is enough
	}
	return err == nil, err
}

// parked takes note of a placement that a commit has ended without ending its
// broadcast, which waits from now on.
func (c *Controller) parked(ctx context.Context, s *snapshot, e *seat, by stream.Stream) error {
	c.view.Return(c.own(e.p))
	s.leave(e.conf.ID)
	c.m.preemptions.Inc()
	now := c.now().UTC()
	b := *e.st.broadcast
	b.WaitingSince = &now
	b.Reason = clip(fmt.Sprintf("its place on %s/%s was given to stream %s of priority %d; its own is %d", e.p.Worker, e.p.Device, by.ID, by.Priority, e.conf.Priority), maxReason)
	e.st.refusedAt, e.st.refusal = c.now(), "preempted"
	return c.saveBroadcast(ctx, e.st, b, "warn", "placement.preempted", b.Reason)
}

// rebalance moves placements to better devices, at most Config.Rebalance a
// minute, spread over it, and none to what is kept for a stream that waits.
func (c *Controller) rebalance(ctx context.Context, s *snapshot) {
	if c.cfg.Rebalance <= 0 || s.holding || s.settling || s.now.Sub(c.looked) < 4*c.cfg.Interval ||
		s.now.Sub(c.moved) < time.Minute/time.Duration(c.cfg.Rebalance) {
		return
	}
	c.looked = s.now
	policy := c.cfg.Policy.Rebalance
	policy.Moves = 1
	for _, m := range placement.Rebalance(c.view, c.allPlaced(ctx, s), policy) {
		e := s.seat(m.Stream)
		if e == nil || !c.leading(ctx) {
			return
		}
		why := fmt.Sprintf("rebalanced from %s/%s to what is better (%s):", m.From.Worker, m.Device, m.Gain)
		done, err := c.again(ctx, s, e, m.From, m.To, commitAs{"rebalanced", "placement.rebalanced", why})
		c.try(m.Stream, err)
		if done {
			c.moved = s.now
		}
	}
}
