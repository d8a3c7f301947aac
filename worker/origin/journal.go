package origin

import (
	"context"
	"errors"
	"fmt"
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

// record writes the entries to the store. It returns stream.ErrFenced when a
// higher epoch exists and stream.ErrConflict when the store's tail says something
// else (conflictError: it is further). Every other failure leaves them in the
// backlog, which flush writes later in order, and is unchecked. st.mu is held.
func (o *Origin) record(st *state, entries ...entry) (unchecked bool, err error) {
	if len(st.backlog) == 0 && !o.storeAway() {
		for len(entries) > 0 {
			err := o.write(st, entries[0])
			if errors.Is(err, stream.ErrFenced) || errors.Is(err, stream.ErrConflict) {
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

// write stores one entry. A conflict about an entry that is there already is none:
// a time-out hid the answer.
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
	conflict := conflictError{last: tail.Last}
	for _, s := range tail.Segments {
		if tail.Broadcast == e.broadcast && s.Number == e.segment.Number && s.Run == e.segment.Run && s.Local == e.segment.Local {
			return nil
		}
		conflict.disc = s.DiscSeq
	}
	if tail.Last >= e.segment.Number {
		return conflict
	}
	return err
}

// conflictError says that the tail has come further than the number to append.
type conflictError struct{ last, disc uint64 }

func (e conflictError) Error() string { return fmt.Sprintf("the tail is at number %d already", e.last) }

func (e conflictError) Unwrap() error { return stream.ErrConflict }

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
		case errors.Is(err, stream.ErrConflict):
			// It is public since the store was away; what the store has stays.
			o.log.Error("the store has another tail", "stream", st.id, "error", err)
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
		o.log.Warn("the store is away: segments are listed unchecked until it is back", "error", err)
	}
}

// storeBack forgets a failure once every backlog is empty, so that the next one
// is logged again.
func (o *Origin) storeBack(empty bool) {
	if at := o.storeRetry.Load(); empty && at != 0 && !o.storeAway() {
		o.storeRetry.CompareAndSwap(at, 0)
	}
}
