package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// moveTime is how long a move counts as under way while no run of its epoch says
// that it lists segments.
const moveTime = 15 * time.Second

// evacuate moves streams away from workers that drain:
//
//	an operator, or Nomad, drains it ──▶ Config.DrainMoves at a time
//	it stops                         ──▶ all at once, before it does
//
// One that fits nowhere else stays until its worker really stops; then it has lost
// its worker like any other.
func (c *Controller) evacuate(ctx context.Context, s *snapshot) {
	var leaving []*seat
	for _, e := range s.seats {
		if w := s.workers[e.p.Worker]; w != nil && w.drain != "" {
			leaving = append(leaving, e)
		} else {
			e.st.stays = ""
		}
	}
	c.m.leaving.Set(float64(len(leaving)))
	if len(leaving) == 0 || s.holding || s.settling {
		return
	}
	slices.SortStableFunc(leaving, func(a, b *seat) int { return b.conf.Priority - a.conf.Priority })
	free := c.cfg.DrainMoves - c.underWay(ctx, s.now)
	for _, e := range leaving {
		w := s.workers[e.p.Worker]
		if !w.stops && free <= 0 {
			continue
		}
		if !c.leading(ctx) {
			return
		}
		moved, err := c.moveAway(ctx, s, e, fmt.Sprintf("worker %s drains (%s)", e.p.Worker, w.drain))
		c.try(e.conf.ID, err)
		if moved {
			free--
		}
	}
}

// underWay counts the moves that are not over.
func (c *Controller) underWay(ctx context.Context, now time.Time) int {
	n := 0
	for id, st := range c.streams {
		if st.movedTo == 0 {
			continue
		}
		r, err := c.store.Status(ctx, id)
		if now.Sub(st.movedAt) >= moveTime || (err == nil && r.Epoch >= st.movedTo && (r.State == stream.RunRunning || r.State == stream.RunRefused)) {
			st.movedTo = 0
			continue
		}
		n++
	}
	return n
}

// moveAway places a seat's stream on another worker, at the next epoch. The commit
// fences the run that it has, so viewers wait for the next one to begin. This is
// the place to start that one first, once two runs of a stream may overlap.
func (c *Controller) moveAway(ctx context.Context, s *snapshot, e *seat, why string) (moved bool, err error) {
	p, err := c.placed(ctx, s, e)
	if err != nil {
		return false, err
	}
	r := p.Request
	r.Failover, r.Behind = true, nil // it may be watched
	d, err := c.decide(r)
	if err != nil {
		return false, c.stay(ctx, e, why, err)
	}
	moved, err = c.again(ctx, s, e, r.Own, d, commitAs{"moved", "placement.moved", why + "; placed anew"})
	if moved {
		e.st.movedTo, e.st.movedAt, e.st.stays = c.state.epochs[e.conf.ID].epoch, s.now, ""
		s.seats = slices.DeleteFunc(s.seats, func(o *seat) bool { return o == e })
	}
	return moved, err
}

// stay writes down, once for each kind of reason, why a stream stays on a worker
// that drains.
func (c *Controller) stay(ctx context.Context, e *seat, why string, refused error) error {
	code := refusalCode(refused)
	if code == "" {
		return refused
	}
	if code == e.st.stays {
		return nil
	}
	e.st.stays = code
	c.m.refusals.WithLabelValues(code).Inc()
	c.event(ctx, e.conf.ID, "warn", "placement.stays", clip(why+", but the stream stays there until it stops: "+refused.Error(), maxReason))
	return nil
}
