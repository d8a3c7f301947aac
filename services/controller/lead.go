package controller

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/services/store"
)

// Start runs the loop until Stop.
func (c *Controller) Start(ctx context.Context) error {
	ctx, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		c.campaign(ctx)
	}()
	return nil
}

// Stop ends the loop and gives the lease back.
func (c *Controller) Stop(ctx context.Context) {
	if c.cancel == nil {
		return
	}
	c.cancel()
	c.done.Wait()
	if err := c.store.ReleaseLease(ctx, lease, c.cfg.Holder); err != nil {
		c.log.Debug("giving the lease back", "error", err)
	}
}

// campaign takes the lease, leads until it is lost, and starts again.
func (c *Controller) campaign(ctx context.Context) {
	t := time.NewTicker(c.cfg.LeaseTTL / 3)
	defer t.Stop()
	for {
		token, ok, err := c.stand(ctx)
		switch {
		case err != nil:
			c.log.Debug("asking for the lease", "error", err)
		case ok:
			c.log.Info("leading", "token", token)
			c.m.leader.Set(1)
			c.lead(ctx, token)
			c.m.leader.Set(0)
			c.log.Info("no longer leading")
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// stand asks for the lease. When the database is another one than before, replicas
// that did not lead last leave it to the one that did, for as long as a lease lasts:
// that one remembers what the database may have lost.
func (c *Controller) stand(ctx context.Context) (token uint64, ok bool, err error) {
	if err := c.watchDatabase(ctx, false); err != nil {
		return 0, false, err
	}
	if c.token == 0 && !c.state.first && c.now().Sub(c.state.changed) < c.cfg.LeaseTTL {
		return 0, false, nil
	}
	token, ok, err = c.store.AcquireLease(ctx, lease, c.cfg.Holder, c.cfg.LeaseTTL)
	if err == nil && !ok {
		c.token, c.state.changed = 0, time.Time{} // another one leads
	}
	return token, ok, err
}

// lead turns the loop until the lease is lost. A turn begins a tenth of the
// interval after the last one's end at the earliest, however much is announced.
func (c *Controller) lead(ctx context.Context, token uint64) {
	var beside sync.WaitGroup
	defer beside.Wait() // after cancel
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, run := range c.cfg.Beside {
		beside.Go(func() { run(ctx) })
	}
	c.begin(token)

	changed := c.store.Watch(ctx)
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	gap := time.NewTimer(c.cfg.Interval)
	defer gap.Stop()
	for {
		renewed, leads := c.renew(ctx)
		if !leads {
			return
		}
		if renewed {
			c.turn(ctx)
		}
		gap.Reset(c.cfg.Interval / 10)
		select {
		case <-ctx.Done():
			return
		case <-gap.C:
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case _, ok := <-changed:
			if !ok {
				changed = nil
			}
			drain(changed)
		}
	}
}

// begin forgets what an earlier leadership has seen, but for the broadcasts that the
// database may have lost since.
func (c *Controller) begin(token uint64) {
	c.streams, c.token = c.remembered(token), token
	c.nodes, c.workers = map[string]nodeSeen{}, map[string]*workerSeen{}
	c.ledgers, c.view, c.repaired = c.store.NewLedgers(), nil, map[string]time.Time{}
	c.from, c.renewed = "", c.now()
	c.holdUntil = c.renewed.Add(c.cfg.Hold)
}

// renew extends the lease. leads is false when it is another's; renewed is false
// while that is not known. A lease that is gone before its time went with its
// database, and is taken again: what this leader remembers is what the database has
// lost.
func (c *Controller) renew(ctx context.Context) (renewed, leads bool) {
	ok, err := c.store.RenewLease(ctx, lease, c.cfg.Holder, c.cfg.LeaseTTL)
	if err == nil && !ok && c.now().Sub(c.renewed) < c.cfg.LeaseTTL {
		var token uint64
		if token, ok, err = c.store.AcquireLease(ctx, lease, c.cfg.Holder, c.cfg.LeaseTTL); err == nil && ok {
			c.token, c.state.generation = token, goneBack
		}
	}
	switch {
	case err != nil:
		return false, c.now().Sub(c.renewed) <= c.cfg.LeaseTTL // else somebody else may lead by now
	case !ok:
		return false, false
	}
	c.renewed = c.now()
	return true, true
}

// leading is renew for the middle of a long turn: it asks when a third of the
// lease has passed. It is false also when ctx is over: nothing can be done then.
func (c *Controller) leading(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	if c.now().Sub(c.renewed) < c.cfg.LeaseTTL/3 {
		return true
	}
	renewed, leads := c.renew(ctx)
	return renewed && leads
}

// drain empties a burst of notifications: one turn serves them all.
func drain(ch <-chan string) {
	for {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		default:
			return
		}
	}
}

// partFor bounds each part of a turn: observing, the streams, the queue, and what
// improves and repairs. One that is slow takes nothing from the next.
const partFor = 10 * time.Second

// chunk is how many streams are read in one round trip.
const chunk = 500

// turn is one pass of the loop.
func (c *Controller) turn(ctx context.Context) {
	start := c.now()
	snap, err := c.look(ctx)
	if err != nil {
		c.failing = true
		c.m.errors.Inc()
		c.log.Warn("observing failed; nothing is decided until it works again", "error", err)
		return
	}
	c.turned = c.state.generation
	if c.failing {
		// Reports expired while Redis was away: believe nobody gone yet.
		c.failing, snap.holding = false, true
		c.holdUntil = c.now().Add(c.cfg.Hold)
	}
	for _, part := range []func(context.Context, *snapshot){
		c.reconcileAll,
		c.serveQueue,
		func(ctx context.Context, s *snapshot) {
			c.evacuate(ctx, s)
			c.restore(ctx, s)
			c.rebalance(ctx, s)
			c.repair(ctx, s)
			c.forgetEpochs(s.now)
		},
	} {
		if !c.leading(ctx) {
			return
		}
		pctx, cancel := context.WithTimeout(ctx, partFor)
		part(pctx, snap)
		cancel()
	}
	c.m.turn.Observe(c.now().Sub(start).Seconds())
}

func (c *Controller) look(ctx context.Context) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, partFor)
	defer cancel()
	return c.observe(ctx)
}

// reconcileAll brings each stream to where it should be. When it can't finish,
// the next turn starts where this one stopped.
func (c *Controller) reconcileAll(ctx context.Context, s *snapshot) {
	ids := s.streams()
	at, _ := slices.BinarySearch(ids, c.from)
	ids = slices.Concat(ids[at:], ids[:at])
	c.from = ""
	for id := range s.publishing { // also of those that this turn doesn't come to
		if st := c.streams[id]; st != nil {
			st.publishedAt = s.now
		}
	}
	for part := range slices.Chunk(ids, chunk) {
		states, generation, err := c.store.States(ctx, part, func(id string) bool { st := c.streams[id]; return st == nil || !st.loaded })
		if err != nil {
			c.from = part[0]
			c.m.errors.Inc()
			c.log.Warn("not all streams were looked at; the next turn goes on there", "stream", part[0], "error", err)
			return
		}
		if generation != c.state.generation { // what was not found may have been lost
			c.from, s.holding, s.settling = part[0], true, true
			c.note(generation, true)
			return
		}
		for i, id := range part {
			if !c.leading(ctx) {
				c.from = id
				c.log.Warn("not all streams were looked at; the next turn goes on there", "stream", id)
				return
			}
			c.try(id, c.reconcile(ctx, s, id, states[i]))
		}
		c.enqueueStarts(ctx, s)
	}
}

// try logs what failed for one stream: the others go on, and the next turn
// tries again.
func (c *Controller) try(id string, err error) {
	if err != nil {
		c.m.errors.Inc()
		c.log.Warn("reconciling a stream failed; trying again", "stream", id, "error", err)
	}
}

var _ Store = (*store.Store)(nil)
