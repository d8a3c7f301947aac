package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	feedBatch = 1000 // entries of the feed read at once
	loadBatch = 256  // workers whose ledgers are read at once
)

// follow takes what is new in the feed, up to the entry until, or to its end for
// "". It returns errGap when the entry that was read last is not there any more,
// or another server or database is.
func (l *Ledgers) follow(ctx context.Context, until string) (changed int, err error) {
	end := until
	if end == "" {
		end = "+"
	}
	for {
		var page *redis.XMessageSliceCmd
		var generation func() string
		var clock *redis.TimeCmd
		if _, err := l.s.state.Pipelined(ctx, func(p redis.Pipeliner) error {
			page = p.XRangeN(ctx, keyLedgerFeed, l.position, end, feedBatch)
			generation = pipeGeneration(ctx, p)
			clock = p.Time(ctx)
			return nil
		}); err != nil && !errors.Is(err, redis.Nil) {
			return changed, err
		}
		messages := page.Val()
		if len(messages) == 0 || messages[0].ID != l.position || generation() != l.generation {
			return changed, errGap
		}
		// The clock first: what comes now is at most as old as it.
		l.advance(clock.Val())
		for _, m := range messages[1:] {
			l.s.unreadable(l.take(m)) // an audit finds what it said
			l.position = m.ID
			changed++
		}
		if len(messages) < feedBatch {
			return changed, nil
		}
	}
}

// unreadable counts and logs what was left out of the view. One bad entry must
// not keep everything else from being placed.
func (s *Store) unreadable(err error) {
	if err == nil {
		return
	}
	s.m.unreadable.Inc()
	s.log.Error("what is reserved can't be read in full; a repair puts it right", "error", err)
}

// take records one change of the feed.
func (l *Ledgers) take(m redis.XMessage) error {
	field := func(name string) string { v, _ := m.Values[name].(string); return v }
	h, err := parseHeld(field("amount") + " " + field("ms"))
	if err != nil {
		return fmt.Errorf("entry %s of the feed: %w", m.ID, err)
	}
	l.set(field("worker"), field("resource"), field("stream"), h)
	return nil
}

// load reads everything. It notes where the feed stands first: what changes while
// it reads is in the feed after that.
func (l *Ledgers) load(ctx context.Context) (reservations int, err error) {
	start, err := l.s.run(ctx, l.s.state, "ledger_feed_start", []string{keyLedgerFeed})
	if err != nil {
		return 0, err
	}
	generation, err := l.s.Generation(ctx)
	if err != nil {
		return 0, err
	}
	now, err := l.s.Time(ctx)
	if err != nil {
		return 0, err
	}
	workers, err := l.s.state.SMembers(ctx, keyLedgerWorkers).Result()
	if err != nil {
		return 0, fmt.Errorf("listing the workers with ledgers: %w", err)
	}
	fresh := l.s.NewLedgers()
	fresh.now = now
	for len(workers) > 0 {
		n := min(loadBatch, len(workers))
		count, err := fresh.loadWorkers(ctx, workers[:n])
		if err != nil {
			return 0, err
		}
		reservations += count
		workers = workers[n:]
	}
	for worker := range l.workers { // those that hold nothing now changed too
		fresh.changed[worker] = struct{}{}
	}
	for worker := range l.changed {
		fresh.changed[worker] = struct{}{}
	}
	l.workers, l.changed, l.aging, l.now = fresh.workers, fresh.changed, fresh.aging, fresh.now
	l.position, l.generation = start[0], generation
	return reservations, nil
}

func (l *Ledgers) loadWorkers(ctx context.Context, workers []string) (reservations int, err error) {
	cmds := make([]*redis.Cmd, len(workers))
	if _, err := l.s.state.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, w := range workers {
			// Its whole text: a pipeline can't answer a script that is not known.
			cmds[i] = l.s.scripts["ledger_read"].Eval(ctx, p, []string{key("ledger-resources", w), keyLedgerFeed}, w)
		}
		return nil
	}); err != nil {
		return 0, err
	}
	for i, c := range cmds {
		out, err := c.StringSlice()
		if err != nil {
			return 0, fmt.Errorf("worker %s: %w", workers[i], err)
		}
		ledger, bad := parseLedger(workers[i], out[2:])
		l.s.unreadable(bad) // a commit there is refused until it is repaired
		for resource, streams := range ledger {
			for id, h := range streams {
				l.set(workers[i], resource, id, h)
				reservations++
			}
		}
	}
	return reservations, nil
}

// Audit reads one worker's ledgers, compares them with the view as it was at the
// same moment, and puts the view right. It returns what differed, a sentence for
// each reservation: nothing, unless a change did not reach the feed.
func (l *Ledgers) Audit(ctx context.Context, worker string) (differences []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.refresh(ctx); err != nil {
		return nil, err
	}
	real, at, err := l.s.readLedger(ctx, worker)
	if err != nil {
		return nil, err
	}
	if _, err := l.follow(ctx, at); err != nil {
		return nil, fmt.Errorf("following the ledgers: %w", err)
	}
	differ := func(resource, id string, seen, is Held) {
		differences = append(differences, fmt.Sprintf("%s/%s: %s was taken to hold %s and holds %s", worker, resource, id, text(seen), text(is)))
		l.set(worker, resource, id, is)
	}
	for resource, g := range l.workers[worker] {
		for id, e := range g.held {
			if real[resource][id] != e.Held {
				differ(resource, id, e.Held, real[resource][id])
			}
		}
	}
	for resource, streams := range real {
		for id, h := range streams {
			if seen, ok := l.held(worker, resource, id); !ok {
				differ(resource, id, seen, h)
			}
		}
	}
	slices.Sort(differences)
	return differences, nil
}

func (l *Ledgers) held(worker, resource, id string) (Held, bool) {
	g := l.workers[worker][resource]
	if g == nil {
		return Held{}, false
	}
	e, ok := g.held[id]
	return e.Held, ok
}

func text(h Held) string {
	if h.Amount == 0 {
		return "nothing"
	}
	return strconv.FormatInt(h.Amount, 10) + " since " + h.At.Format(time.RFC3339)
}
