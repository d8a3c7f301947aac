package ingest

import (
	"cmp"
	"context"
	"time"
)

// Limits of what is told of publishers without a key: they cost a scanner
// nothing, and must cost the api and a stream's history little.
const (
	unkeyedEvery = time.Minute            // one stream is told of once in it
	unkeyedPause = 100 * time.Millisecond // between any two
	maxUnkeyed   = 16                     // waiting; more are dropped
)

// unkeyed are the publishers without a key that the api is still to be told
// of. They are refused here, without a question; the api knows which of their
// streams exist, and writes it into those's events.
type unkeyed struct {
	told    *quiet
	waiting chan publishRequest
}

func newUnkeyed() *unkeyed {
	return &unkeyed{told: newQuiet(unkeyedEvery), waiting: make(chan publishRequest, maxUnkeyed)}
}

// add never blocks: mediamtx waits for the caller.
func (u *unkeyed) add(r publishRequest, now time.Time) {
	if !u.told.first(r.Stream, now) {
		return
	}
	select {
	case u.waiting <- r:
	default: // the log has it
	}
}

// tellUnkeyed remembers a refused publisher without a key for unkeyedLoop.
func (a *Agent) tellUnkeyed(req authRequest) {
	id, err := streamOf(req.Path)
	if err != nil {
		return
	}
	a.unkeyed.add(publishRequest{
		Stream: id, Node: a.cfg.Node, Conn: cmp.Or(req.ID, "none"), Protocol: req.Protocol, Remote: req.IP,
	}, time.Now())
}

// unkeyedLoop tells the api, one after the other. What it does not take is not
// told again: the refusal itself never depended on it.
func (a *Agent) unkeyedLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-a.unkeyed.waiting:
			if err := a.api.refused(ctx, r); err != nil {
				a.log.Debug("telling the api of a publisher without a key", "stream", r.Stream, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(unkeyedPause):
		}
	}
}
