package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// GetStreamStatus serves GET /v1/streams/{id}/status.
func (h *handlers) GetStreamStatus(w http.ResponseWriter, r *http.Request, id wire.StreamID) {
	list, err := h.statuses(r.Context(), []string{id})
	if err == nil && len(list) == 0 {
		err = notFound(id)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	h.answer(w, r, http.StatusOK, list[0])
}

// statuses joins what the controller decided with what the workers report, of the
// streams that there are, in the order of ids. The parts are read one after the
// other, each of all streams at once, so they may be of slightly different times; a
// report of an epoch before the placement's is left out.
func (h *handlers) statuses(ctx context.Context, ids []string) ([]wire.StreamStatus, error) {
	states, err := h.states(ctx, ids)
	if err != nil {
		return nil, err
	}
	present := make([]string, len(states))
	for i, st := range states {
		present[i] = st.Stream.ID
	}
	runs, err := h.store.Statuses(ctx, present)
	if err != nil {
		return nil, about(err, "runs of %d streams", len(present))
	}
	list := make([]wire.StreamStatus, len(states))
	unexplained := map[string]time.Time{} // when their broadcasts began
	for i, st := range states {
		run, reported := runs[st.Stream.ID]
		reported = reported && st.Placement.Epoch != 0 && run.Epoch == st.Placement.Epoch
		list[i] = status(st, run, reported)
		if b := st.Broadcast; list[i].LastError == nil && !reported && b.State == stream.BroadcastLive {
			unexplained[st.Stream.ID] = b.StartedAt
		}
	}
	why := h.newestErrors(ctx, unexplained)
	for i, st := range states {
		if e, ok := why[st.Stream.ID]; ok {
			list[i].LastError = &e
		}
	}
	return list, nil
}

// states are the streams of ids that there are, each with its last placement and
// broadcast; one that it has not is zero.
func (h *handlers) states(ctx context.Context, ids []string) ([]store.State, error) {
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return stream.CheckID(id) != nil })
	if len(ids) == 0 {
		return nil, nil
	}
	read, _, err := h.store.States(ctx, ids, func(string) bool { return true })
	if err != nil {
		return nil, about(err, "state of %d streams", len(ids))
	}
	list := make([]store.State, 0, len(read))
	for i, st := range read {
		if errors.Is(st.StreamErr, stream.ErrNotFound) {
			continue
		}
		if st.StreamErr != nil {
			return nil, about(st.StreamErr, "stream %q", ids[i])
		}
		if st.Broadcast, _, err = optional(st.Broadcast, st.BroadcastErr); err != nil {
			return nil, about(err, "broadcast of stream %q", ids[i])
		}
		if st.Placement, _, err = optional(st.Placement, st.PlacementErr); err != nil {
			return nil, about(err, "placement of stream %q", ids[i])
		}
		st.Stream.ID = ids[i]
		list = append(list, st)
	}
	return list, nil
}

// status is a stream's; run is meant only when it was reported of the placement.
func status(st store.State, run stream.RunStatus, reported bool) wire.StreamStatus {
	b := st.Broadcast
	out := wire.StreamStatus{Stream: st.Stream.ID, Renditions: []wire.RenditionStatus{}}
	if b.ID != "" {
		out.Broadcast = toBroadcast(b)
		if b.Session != nil && b.State == stream.BroadcastLive {
			out.Session = toSession(*b.Session)
		}
	}
	if st.Placement.Epoch != 0 {
		out.Placement = toPlacement(st.Placement)
	}
	if reported {
		out.Run = toRunStatus(run)
		out.LastError = nonZero(run.LastError)
		for _, rendition := range run.Renditions {
			out.Renditions = append(out.Renditions, toRendition(rendition))
		}
	}
	out.State = state(st.Stream, b, run, reported)
	if b.State == stream.BroadcastLive && b.Reason != "" {
		out.LastError = &b.Reason // it waits for capacity; a run would be an earlier broadcast's
	}
	return out
}

func state(s stream.Stream, b stream.Broadcast, run stream.RunStatus, haveRun bool) wire.StreamState {
	switch b.State {
	case stream.BroadcastGrace:
		return wire.StreamStateGrace
	case stream.BroadcastLive:
	default:
		if s.Disabled {
			return wire.StreamStateDisabled
		}
		return wire.StreamStateOffline
	}
	if !haveRun {
		return wire.StreamStateWaiting
	}
	switch run.State {
	case stream.RunStarting:
		return wire.StreamStateStarting
	case stream.RunRunning:
		return wire.StreamStateLive
	case stream.RunBackoff, stream.RunRefused:
		return wire.StreamStateFailing
	default:
		return wire.StreamStateWaiting
	}
}

// newestErrors say why broadcasts have no run, such as a placement that was refused:
// the last error in each stream's history since its time.
func (h *handlers) newestErrors(ctx context.Context, since map[string]time.Time) map[string]string {
	if len(since) == 0 {
		return nil
	}
	histories, err := h.store.NewestEvents(ctx, slices.Collect(maps.Keys(since)), maxLimit)
	if err != nil {
		h.logger.Warn("reading events", "streams", len(since), "error", err)
	}
	why := make(map[string]string, len(histories))
	for id, events := range histories {
		for _, e := range slices.Backward(events) {
			if e.Level == "error" && !e.Time.Before(since[id]) {
				why[id] = e.Message
				break
			}
		}
	}
	return why
}

// optional turns "not found" into false.
func optional[T any](v T, err error) (T, bool, error) {
	if errors.Is(err, stream.ErrNotFound) {
		var zero T
		return zero, false, nil
	}
	return v, err == nil, err
}
