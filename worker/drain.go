package worker

import (
	"context"
	"errors"
	"time"
)

const (
	// stopReserve is what Stop keeps of its time for what follows the drain.
	stopReserve = 5 * time.Second
	// takerAge is the age of a report from which its worker is not counted on, and
	// how long a worker that leaves waits for reports: Redis may have lost them.
	takerAge = 3 * time.Second
	// lookEvery is how often a worker that leaves looks at what it still runs.
	lookEvery = 250 * time.Millisecond
)

// leave lets other workers take this one's streams, and goes on serving what was
// public of them. All of it ends within Config.DrainTimeout, and stopReserve
// before ctx does.
func (w *Worker) leave(ctx context.Context) {
	limit := w.cfg.DrainTimeout
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)-stopReserve)
	}
	if limit <= 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if w.giveAway(ctx) {
		w.linger(ctx)
	}
}

// linger serves on, after the streams have moved, while routers may ask for what
// they have not got yet: those that have just started, and those that nobody has
// asked for the stream before. It ends when what was public here has left the live
// window, after Config.Linger, or with ctx.
func (w *Worker) linger(ctx context.Context) {
	window := time.Until(w.origin.MovedUntil())
	limit := min(window, w.cfg.Linger)
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end))
	}
	if limit <= 0 {
		return
	}
	w.log.Info("serving on what was public of streams that have moved", "for", limit.Round(time.Second), "window", window.Round(time.Second))
	defer w.m.lingering.Set(0)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		w.m.lingering.Set(time.Until(end).Seconds())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// giveAway waits until other workers have taken this one's streams, which the
// controller moves once a report says that this one drains:
//
//	report ──▶ controller commits elsewhere ──▶ the run here is fenced and ends ──▶ none left
//
// It waits as long as ctx lasts and there is another worker that takes streams, and
// says whether none is left. What runs until then is served.
func (w *Worker) giveAway(ctx context.Context) bool {
	if len(w.runs.Epochs()) == 0 {
		return true
	}
	if err := w.putReport(); err != nil {
		w.log.Warn("can't say that this worker drains; the next heartbeat tries again", "error", err)
	}
	end, _ := ctx.Deadline()
	w.log.Info("waiting for other workers to take the streams", "streams", len(w.runs.Epochs()), "at_most", time.Until(end).Round(time.Second))
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var answered time.Time // when Redis last said that there is somebody
	start := time.Now()
	for {
		takes, err := w.othersTake(ctx)
		switch {
		case err == nil && takes:
			answered = time.Now()
		case time.Since(answered) <= w.takerAge || time.Since(start) <= w.takerAge:
		case err == nil:
			w.log.Warn("no other worker takes streams; ending those that are here", "streams", len(w.runs.Epochs()))
			return false
		default:
			w.log.Warn("can't see other workers; ending the streams that are here", "streams", len(w.runs.Epochs()), "error", err)
			return false
		}
		if err := w.runs.Sync(ctx); err != nil {
			w.log.Debug("asking what is still placed here", "error", err)
		}
		left := len(w.runs.Epochs())
		if left == 0 {
			w.log.Info("other workers have taken the streams", "after", time.Since(start).Round(time.Millisecond))
			return true
		}
		select {
		case <-ctx.Done():
			w.log.Warn("not all streams were taken in time; ending those that are left", "streams", left)
			return false
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
	own := false
	for _, r := range reports {
		own = own || r.Worker == w.cfg.ID
		if r.Worker != w.cfg.ID && r.Ready && r.Draining() == "" && r.Age < w.takerAge {
			return true, nil
		}
	}
	if !own {
		return false, errors.New("the reports were lost: not even this worker's is there")
	}
	return false, nil
}
