package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// databaseSeen is what a replica remembers of Redis state.
//
// State may go back in time: its master is replaced by one that lags, an older
// copy is restored, a disk is lost. What has gone on meanwhile are the workers'
// runs, so what they report is believed before anything is committed:
//
//	another generation ──▶ settling: nothing is committed ──▶ each worker has reported
//	──▶ a stream whose run has a higher epoch than its placement, or none:
//	    its counter is raised to that, and it is placed again
//
// The last step needs no generation to be noticed: see place.
type databaseSeen struct {
	generation string
	since      time.Time // when this generation was first seen
	// changed is when another generation was first seen since somebody was last
	// seen to lead: others that follow within two leases don't count.
	changed time.Time
	// first is set until another generation than the first has been seen: what
	// was before this replica started is not known.
	first bool
	// led is set when this replica led as the generation changed: it knows which
	// workers have to report.
	led bool
	// epochs are the highest that this replica has committed, by stream; see
	// forgetEpochs.
	epochs map[string]given
	swept  time.Time
}

// given is an epoch that this replica has committed.
type given struct {
	epoch uint64
	at    time.Time
}

// forgetEpochs forgets, now and then, those of streams without a broadcast. What
// still runs of one would tell its epoch.
func (c *Controller) forgetEpochs(now time.Time) {
	d := &c.state
	if now.Sub(d.swept) < time.Minute {
		return
	}
	d.swept = now
	for id, g := range d.epochs {
		if c.streams[id] == nil && now.Sub(g.at) > stream.EpochMemory {
			delete(d.epochs, id)
		}
	}
}

// watchDatabase notes a change of the generation. A leader then holds, and
// has the broadcasts that it remembers written again, as it comes to each.
func (c *Controller) watchDatabase(ctx context.Context, leads bool) error {
	g, err := c.store.Generation(ctx)
	if err != nil {
		return err
	}
	c.note(g, leads)
	return nil
}

// goneBack is the generation of a database that was replaced, by one that may be of
// the same generation.
const goneBack = "gone back"

// note takes the generation that was read.
func (c *Controller) note(g string, leads bool) {
	d := &c.state
	if g == d.generation {
		return
	}
	now := c.now()
	first := d.generation == ""
	if !first {
		c.m.generations.Inc()
		c.log.Warn("Redis state is another server or database than before; nothing is placed until the workers have reported", "was", d.generation, "is", g)
	}
	if !first && leads {
		c.holdUntil = now.Add(c.cfg.Hold)
		for _, st := range c.streams {
			st.task = 0 // tasks may be lost too
			st.unsaved = st.broadcast != nil && st.broadcast.State != stream.BroadcastEnded
		}
	}
	if now.Sub(d.changed) > 2*c.cfg.LeaseTTL {
		d.changed = now
	}
	d.generation, d.since, d.first, d.led = g, now, first, leads
}

// remembered are the broadcasts of this replica's last leadership that state may have
// lost since, if nobody has led in between: the token would be higher by more than one.
// In a state that has gone back it can't tell that; what others wrote is lost then too.
func (c *Controller) remembered(token uint64) map[string]*streamSeen {
	kept := map[string]*streamSeen{}
	if c.token == 0 || token > c.token+1 {
		return kept
	}
	for id, st := range c.streams {
		lost := c.turned != c.state.generation || st.unsaved
		if b := st.broadcast; lost && b != nil && b.State != stream.BroadcastEnded {
			kept[id] = &streamSeen{broadcast: b, loaded: true, unsaved: true, publishedAt: c.now(), grace: st.grace}
		}
	}
	return kept
}

// settling says whether epochs may be missing from Redis that workers have not
// reported yet. A replica that has just started can't tell, and waits for two
// heartbeats (Hold/4).
func (c *Controller) settling(now time.Time) bool {
	d := &c.state
	if d.first {
		return now.Before(d.since.Add(c.cfg.Hold / 4))
	}
	if !now.Before(d.since.Add(c.cfg.Hold)) {
		return false
	}
	for _, w := range c.workers {
		if !w.lost && !w.at.After(d.since) {
			return true
		}
	}
	return !d.led || len(c.workers) == 0
}

// runSeen is the newest run that workers report of a stream.
type runSeen struct {
	worker string
	epoch  uint64
}

// reported collects the newest runs that workers report.
func (c *Controller) reported() map[string]runSeen {
	runs := map[string]runSeen{}
	for id, w := range c.workers {
		for s, epoch := range w.report.Runs {
			if r := runs[s]; epoch > r.epoch || (epoch == r.epoch && id < r.worker) {
				runs[s] = runSeen{worker: id, epoch: epoch}
			}
		}
	}
	return runs
}

// raiseEpoch makes sure that a commit gives no epoch that a run, or this
// replica, has used.
func (c *Controller) raiseEpoch(ctx context.Context, s *snapshot, id string, placed uint64) error {
	used := max(s.runs[id].epoch, c.state.epochs[id].epoch)
	if used <= placed {
		return nil
	}
	if err := c.store.RaiseEpoch(ctx, id, used); err != nil {
		return fmt.Errorf("raising the epoch: %w", err)
	}
	return nil
}
