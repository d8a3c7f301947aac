package controller

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// repair compares the ledgers of workers with their placements, each worker
// every RepairEvery, spread over the turns: one that a placement does not
// account for is returned, one that is missing is made again. It then compares
// the view of them with Redis. Neither should ever find anything.
func (c *Controller) repair(ctx context.Context, s *snapshot) {
	if s.holding || s.settling {
		return
	}
	workers := map[string]bool{}
	for id := range c.workers {
		workers[id] = true
	}
	for _, id := range c.ledgers.Workers() {
		workers[id] = true
	}
	for id := range c.repaired {
		if !workers[id] {
			delete(c.repaired, id)
		}
	}
	turns := max(1, int(c.cfg.RepairEvery/c.cfg.Interval))
	budget := (len(workers) + turns - 1) / turns
	due := slices.DeleteFunc(slices.Sorted(maps.Keys(workers)), func(id string) bool { return s.now.Sub(c.repaired[id]) < c.cfg.RepairEvery })
	slices.SortStableFunc(due, func(a, b string) int { return c.repaired[a].Compare(c.repaired[b]) })
	for _, id := range due[:min(budget, len(due))] {
		if !c.leading(ctx) {
			return
		}
		c.repaired[id] = s.now
		changed, err := c.store.RepairLedger(ctx, id)
		c.found(id, "ledger", changed, err)
		differs, err := c.ledgers.Audit(ctx, id)
		c.found(id, "view", differs, err)
	}
}

// found logs and counts what was repaired at a worker.
func (c *Controller) found(worker, where string, changed []string, err error) {
	if err != nil {
		c.m.errors.Inc()
		c.log.Warn("repairing failed; trying again later", "worker", worker, "what", where, "error", err)
	}
	if len(changed) > 0 {
		c.m.repairs.WithLabelValues(where).Add(float64(len(changed)))
		c.log.Error("reservations were repaired", "worker", worker, "what", where, "repaired", strings.Join(changed, "; "))
	}
}
