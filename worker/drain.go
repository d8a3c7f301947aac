package worker

import (
	"context"
	"time"
)

const (
	// stopReserve is what Stop keeps of its time for what follows the drain.
	stopReserve = 5 * time.Second
	// takerAge is the age of a report from which its worker is not counted on.
	takerAge = 3 * time.Second
	// lookEvery is how often a worker that leaves looks at what it still runs.
	lookEvery = 250 * time.Millisecond
)

// giveAway waits until other workers have taken this one's streams, which the
// controller moves once a report says that this one drains:
//
//	report ──▶ controller commits elsewhere ──▶ the run here is fenced and ends ──▶ none left
//
// It waits for Config.DrainTimeout at most, and only as long as there is another
// worker that takes streams. What runs until then is served.
func (w *Worker) giveAway(ctx context.Context) {
	limit := w.cfg.DrainTimeout
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)-stopReserve)
	}
	if limit <= 0 || len(w.runs.Epochs()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := w.putReport(); err != nil {
		w.log.Warn("can't say that this worker drains; the next heartbeat tries again", "error", err)
	}
	w.log.Info("waiting for other workers to take the streams", "streams", len(w.runs.Epochs()), "at_most", limit.Round(time.Second))
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var answered time.Time // when Redis last said that there is somebody
	start := time.Now()
	for {
		takes, err := w.othersTake(ctx)
		switch {
		case err == nil && takes:
			answered = time.Now()
		case err == nil:
			w.log.Warn("no other worker takes streams; ending those that are here", "streams", len(w.runs.Epochs()))
			return
		case time.Since(answered) > takerAge && time.Since(start) > takerAge:
			w.log.Warn("can't see other workers; ending the streams that are here", "streams", len(w.runs.Epochs()), "error", err)
			return
		}
		if err := w.runs.Sync(ctx); err != nil {
			w.log.Debug("asking what is still placed here", "error", err)
		}
		left := len(w.runs.Epochs())
		if left == 0 {
			w.log.Info("other workers have taken the streams", "after", time.Since(start).Round(time.Millisecond))
			return
		}
		select {
		case <-ctx.Done():
			w.log.Warn("not all streams were taken in time; ending those that are left", "streams", left)
			return
		case <-tick.C:
		}
	}
}

// othersTake says whether another worker may take streams.
func (w *Worker) othersTake(ctx context.Context) (bool, error) {
	reports, err := w.deps.Store.Reports(ctx)
	if err != nil {
		return false, err
	}
	for _, r := range reports {
		if r.Worker != w.cfg.ID && r.Ready && r.Draining() == "" && r.Age < takerAge {
			return true, nil
		}
	}
	return false, nil
}
