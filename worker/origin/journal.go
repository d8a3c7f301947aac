package origin

import (
	"context"
	"errors"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// entry is one thing that Redis live must learn, in order: a run, a segment or
// the tail's end.
type entry struct {
	run       *stream.Run
	segment   *stream.Segment
	end       bool
	broadcast string
	epoch     uint64
	window    time.Duration
}

// retryStore is how long the store is left alone after a failure, so that its
// absence does not delay the listing of each segment.
const retryStore = time.Second

// maxBacklog bounds what is kept for a store that is away: over two hours of 2 s
// segments. Older entries have left every window.
const maxBacklog = 4096

// record writes the entries to the store and returns stream.ErrFenced when a
// higher epoch exists. Every other failure leaves them in the backlog, which
// flush writes later in order. unchecked tells that this happened. st.mu is held.
func (o *Origin) record(st *state, entries ...entry) (unchecked bool, err error) {
	if len(st.backlog) == 0 && !o.storeAway() {
		for len(entries) > 0 {
			err := o.write(st, entries[0])
			if errors.Is(err, stream.ErrFenced) {
				return false, err
			}
			if err != nil {
				o.storeFailed(err)
				break
			}
			entries = entries[1:]
		}
	}
	st.backlog = append(st.backlog, entries...)
	if n := len(st.backlog) - maxBacklog; n > 0 {
		st.backlog = append([]entry(nil), st.backlog[n:]...)
	}
	return len(entries) > 0, nil
}

// write stores one entry. A conflict means that the entry is there already (a
// time-out hid the answer) or that the store lost the tail.
func (o *Origin) write(st *state, e entry) error {
	ctx, cancel := context.WithTimeout(o.ctx, o.cfg.StoreTimeout)
	defer cancel()
	switch {
	case e.run != nil:
		return o.cfg.Store.SaveRun(ctx, st.id, *e.run)
	case e.end:
		return o.cfg.Store.EndTail(ctx, st.id, e.epoch)
	}
	err := o.cfg.Store.AppendSegment(ctx, st.id, e.broadcast, *e.segment, e.window)
	if !errors.Is(err, stream.ErrConflict) {
		return err
	}
	tail, lerr := o.cfg.Store.LoadTail(ctx, st.id)
	if lerr != nil {
		return lerr
	}
	if tail.Broadcast == e.broadcast {
		for _, s := range tail.Segments {
			if s.Number == e.segment.Number && s.Run == e.segment.Run && s.Local == e.segment.Local {
				return nil
			}
		}
	}
	o.log.Warn("the store's tail does not continue here", "stream", st.id, "number", e.segment.Number, "tail", tail.Last, "err", err)
	return nil // listed all the same: a successor reads what is there
}

// flush writes the backlog of one stream until it is empty or the store fails.
func (o *Origin) flush(st *state) {
	for {
		st.mu.Lock()
		if len(st.backlog) == 0 || o.storeAway() || st.isFenced() {
			st.mu.Unlock()
			return
		}
		e := st.backlog[0]
		st.mu.Unlock()

		err := o.write(st, e)
		switch {
		case errors.Is(err, stream.ErrFenced):
			o.Fence(st.id, e.epoch+1)
			return
		case err != nil:
			o.storeFailed(err)
			return
		}
		st.mu.Lock()
		if len(st.backlog) > 0 && st.backlog[0] == e {
			st.backlog = st.backlog[1:]
		}
		empty := len(st.backlog) == 0
		st.mu.Unlock()
		if empty {
			o.log.Info("the store has caught up", "stream", st.id)
		}
	}
}

func (o *Origin) storeAway() bool { return o.cfg.Now().UnixNano() < o.storeRetry.Load() }

func (o *Origin) storeFailed(err error) {
	if o.ctx.Err() != nil {
		return
	}
	if o.storeRetry.Swap(o.cfg.Now().Add(retryStore).UnixNano()) == 0 {
		o.log.Warn("the store is away: segments are listed unchecked until it is back", "err", err)
	}
}

// storeBack forgets a failure once every backlog is empty, so that the next one
// is logged again.
func (o *Origin) storeBack(empty bool) {
	if at := o.storeRetry.Load(); empty && at != 0 && !o.storeAway() {
		o.storeRetry.CompareAndSwap(at, 0)
	}
}
