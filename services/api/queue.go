package api

import (
	"context"
	"slices"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// statesBatch is how many streams' states are read at once.
const statesBatch = 1000

// queue lines the stream of r, whose broadcast is b, up with those that wait, as the
// controller does, and sets r.Behind. Its answer is nil when the stream itself does not
// wait; one that would begin to now comes last of its priority.
func (h *handlers) queue(ctx context.Context, fleet *placement.Snapshot, r *placement.Request, b stream.Broadcast) (*wire.QueuePlace, error) {
	now := h.now()
	own := placement.Waiting{Request: *r, Since: now}
	waits := b.State == stream.BroadcastLive && b.WaitingSince != nil
	if waits {
		own.Since = *b.WaitingSince
	}
	line, err := h.waiting(ctx, r.Stream)
	if err != nil {
		return nil, err
	}
	var moved, others []placement.Waiting
	for _, w := range append(line, own) {
		if w.Request.Failover {
			moved = append(moved, w)
		} else {
			others = append(others, w)
		}
	}
	line = append(placement.Order(moved), placement.Line(fleet, others, now, placement.DefaultPatience)...)
	at := slices.IndexFunc(line, func(w placement.Waiting) bool { return w.Request.Stream == r.Stream })
	r.Behind = line[at].Request.Behind
	if !waits {
		return nil, nil
	}
	place := &wire.QueuePlace{Position: at + 1, Waiting: len(line), Since: own.Since}
	for _, w := range line[:at] {
		switch {
		case w.Request.Failover && !r.Failover:
			place.Ahead.LostWorker++
		case w.Request.Priority > r.Priority:
			place.Ahead.Priority++
		default:
			place.Ahead.Longer++
		}
	}
	if k := r.Behind; k != nil {
		place.Behind = &wire.KeptDevice{Stream: k.Stream, Worker: k.Worker, Device: k.Device, Reserved: toReservations(k.Reserved)}
	}
	return place, nil
}

// waiting are the streams that wait for capacity, without the one named; what can't be
// read of one leaves out that one, which the controller can't place either.
func (h *handlers) waiting(ctx context.Context, without string) ([]placement.Waiting, error) {
	ids, err := h.store.Publishing(ctx)
	if err != nil {
		return nil, about(err, "publishers of the ingest nodes")
	}
	slices.Sort(ids)
	ids = slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return id == without || stream.CheckID(id) != nil })
	var list []store.State
	for part := range slices.Chunk(ids, statesBatch) {
		states, _, err := h.store.States(ctx, part, func(string) bool { return true })
		if err != nil {
			return nil, about(err, "state of %d streams", len(part))
		}
		for _, st := range states {
			b := st.Broadcast
			if st.StreamErr == nil && st.BroadcastErr == nil && !st.Stream.Disabled && b.State == stream.BroadcastLive && b.WaitingSince != nil {
				list = append(list, st)
			}
		}
	}
	return h.requests(ctx, list)
}

// requests are what the controller asks for streams that wait. One whose profile is
// gone has no place in the queue.
func (h *handlers) requests(ctx context.Context, list []store.State) ([]placement.Waiting, error) {
	ids := make([]string, len(list))
	for i, st := range list {
		ids[i] = st.Stream.ID
	}
	runs, err := h.store.Statuses(ctx, ids)
	if err != nil {
		return nil, about(err, "runs of %d streams", len(ids))
	}
	profiles := map[string]*stream.Profile{} // nil for one that is not there
	waiting := make([]placement.Waiting, 0, len(list))
	for _, st := range list {
		name := st.Stream.Profile
		profile, known := profiles[name]
		if !known {
			p, found, err := optional(h.store.GetProfile(ctx, name))
			if err != nil {
				return nil, about(err, "profile %q", name)
			}
			if found {
				profile = &p
			}
			profiles[name] = profile
		}
		if profile == nil {
			continue
		}
		r := requestOf(st.Stream, *profile)
		if run, ok := runs[r.Stream]; ok && st.Broadcast.Session != nil && run.Session == st.Broadcast.Session.ID {
			r.Media = run.Media
		}
		// What holds a placement still has lost its worker: else it would not wait.
		r.Failover = st.PlacementErr == nil && st.Placement.State != stream.PlacementEnded && st.Placement.Broadcast == st.Broadcast.ID
		waiting = append(waiting, placement.Waiting{Request: r, Since: *st.Broadcast.WaitingSince})
	}
	return waiting, nil
}
