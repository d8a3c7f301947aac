package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// GetStreamStatus serves GET /v1/streams/{id}/status.
func (h *handlers) GetStreamStatus(w http.ResponseWriter, r *http.Request, id wire.StreamID) {
	out, err := h.status(r.Context(), id)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	h.answer(w, r, http.StatusOK, out)
}

// status joins what the controller decided with what the worker reports. The
// parts are read one after the other, so they may be of slightly different
// times; a report of an epoch before the placement's is left out.
func (h *handlers) status(ctx context.Context, id string) (wire.StreamStatus, error) {
	out := wire.StreamStatus{Stream: id, Renditions: []wire.RenditionStatus{}}
	s, err := h.stream(ctx, id)
	if err != nil {
		return out, err
	}
	b, haveBroadcast, err := optional(h.store.Broadcast(ctx, id))
	if err != nil {
		return out, about(err, "broadcast of stream %q", id)
	}
	p, havePlacement, err := optional(h.store.Placement(ctx, id))
	if err != nil {
		return out, about(err, "placement of stream %q", id)
	}
	run, haveRun, err := optional(h.store.Status(ctx, id))
	if err != nil {
		return out, about(err, "run of stream %q", id)
	}
	haveBroadcast = haveBroadcast && b.ID != ""
	havePlacement = havePlacement && p.Epoch != 0
	haveRun = haveRun && havePlacement && run.Epoch == p.Epoch
	if haveBroadcast {
		out.Broadcast = toBroadcast(b)
		if b.Session != nil && b.State == stream.BroadcastLive {
			out.Session = toSession(*b.Session)
		}
	}
	if havePlacement {
		out.Placement = toPlacement(p)
	}
	if haveRun {
		out.Run = toRunStatus(run)
		out.LastError = nonZero(run.LastError)
		for _, rendition := range run.Renditions {
			out.Renditions = append(out.Renditions, toRendition(rendition))
		}
	}
	out.State = state(s, b, run, haveRun)
	if b.State == stream.BroadcastLive && b.Reason != "" {
		out.LastError = &b.Reason // it waits for capacity; a run would be an earlier broadcast's
	}
	if out.LastError == nil && !haveRun && b.State == stream.BroadcastLive {
		out.LastError = h.newestError(ctx, id, b.StartedAt)
	}
	return out, nil
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

// newestError says why a broadcast has no run, such as a placement that was
// refused: the last error in the stream's history since then.
func (h *handlers) newestError(ctx context.Context, id string, since time.Time) *string {
	events, err := h.store.Events(ctx, id, "", maxLimit)
	if err != nil {
		h.logger.Warn("reading events", "stream", id, "error", err)
		return nil
	}
	for _, e := range slices.Backward(events) {
		if e.Level == "error" && !e.Time.Before(since) {
			return &e.Message
		}
	}
	return nil
}

// optional turns "not found" into false.
func optional[T any](v T, err error) (T, bool, error) {
	if errors.Is(err, stream.ErrNotFound) {
		var zero T
		return zero, false, nil
	}
	return v, err == nil, err
}
