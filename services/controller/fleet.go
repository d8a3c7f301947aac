package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// forgetLost is how long a lost worker that holds nothing is remembered; until
// then refusals name it.
const forgetLost = 10 * time.Minute

// refreshView brings the view of the fleet up to date: the ledgers at the cost of
// what changed, the workers at that of their number.
func (c *Controller) refreshView(ctx context.Context, now time.Time) error {
	start := c.now()
	if _, err := c.ledgers.Refresh(ctx); err != nil {
		return fmt.Errorf("reading the ledgers: %w", err)
	}
	if g := c.ledgers.Generation(); g != c.state.generation {
		return fmt.Errorf("reading the ledgers: Redis state was replaced: it is %s, not %s", g, c.state.generation)
	}
	takers := 0
	for id, w := range c.workers {
		if w.lost && now.Sub(w.at) > forgetLost && len(c.ledgers.Load(id, w.load)) == 0 {
			delete(c.workers, id)
			if c.view != nil {
				c.view.Remove(id)
			}
			continue
		}
		if !w.lost && w.report.Ready && !w.report.Drain {
			takers++
		}
	}
	if p := c.cfg.Policy.For(takers); c.view == nil || c.view.Policy.Reserve != p.Reserve {
		c.view = &placement.Snapshot{Policy: p}
	}
	for id, w := range c.workers {
		w.load = c.ledgers.Load(id, w.load)
		c.view.Put(placement.Worker{Report: w.report, Lost: w.lost, HeartbeatAge: now.Sub(w.at), Ledger: w.load})
	}
	c.m.refresh.Observe(c.now().Sub(start).Seconds())
	return nil
}

// own is what a commit for the stream would give back of its former placement.
func (c *Controller) own(p stream.Placement) placement.Own {
	if p.Epoch == 0 || p.State == stream.PlacementEnded {
		return placement.Own{}
	}
	reserved, young := c.ledgers.Held(p.Worker, p.Stream)
	return placement.Own{Worker: p.Worker, Reserved: reserved, Young: young}
}

// profile reads a profile once a turn.
func (c *Controller) profile(ctx context.Context, s *snapshot, name string) (stream.Profile, error) {
	if p, ok := s.profiles[name]; ok {
		return p, nil
	}
	p, err := c.store.GetProfile(ctx, name)
	if err != nil {
		return p, fmt.Errorf("profile %q: %w", name, err)
	}
	s.profiles[name] = p
	return p, nil
}
