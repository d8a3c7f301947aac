package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// updateTries bounds how often an unconditional update starts again after
// another writer won.
const updateTries = 20

// firstEvent comes before the id of every event.
const firstEvent = "0-0"

// ListStreams serves GET /v1/streams.
func (h *handlers) ListStreams(w http.ResponseWriter, r *http.Request, params wire.ListStreamsParams) {
	limit, after, err := page("streams", params.Limit, params.After)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	streams, next, err := h.store.ListStreams(r.Context(), after, limit)
	if err != nil {
		h.fail(w, r, about(err, "list of streams"))
		return
	}
	out := wire.StreamPage{Items: make([]wire.Stream, 0, len(streams)), Next: cursor("streams", next)}
	for _, s := range streams {
		out.Items = append(out.Items, toStream(s))
	}
	h.answer(w, r, http.StatusOK, out)
}

// CreateStream serves POST /v1/streams.
func (h *handlers) CreateStream(w http.ResponseWriter, r *http.Request) {
	var body wire.StreamCreate
	if err := decode(r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	s := fromStreamCreate(body)
	now := h.now()
	s.CreatedAt, s.UpdatedAt, s.Version = now, now, 1
	if err := h.checkStream(r.Context(), s); err != nil {
		h.fail(w, r, err)
		return
	}
	key, hash := auth.NewStreamKey()
	if err := h.store.CreateStream(r.Context(), s, hash); err != nil {
		h.fail(w, r, about(err, "stream %q", s.ID))
		return
	}
	created, err := h.store.GetStream(r.Context(), s.ID)
	if err != nil {
		// It exists, and its key is only here: answer with what was asked for.
		h.logger.Warn("reading a stream just created", "stream", s.ID, "error", err)
		created = s
	}
	h.changed(r.Context(), s.ID, "stream.created", "info", "created with profile "+s.Profile)
	w.Header().Set("Location", "/v1/streams/"+s.ID)
	setETag(w, created.Version)
	h.answer(w, r, http.StatusCreated, toStreamWithKey(created, key))
}

// GetStream serves GET /v1/streams/{id}.
func (h *handlers) GetStream(w http.ResponseWriter, r *http.Request, id wire.StreamID) {
	s, err := h.stream(r.Context(), id)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	setETag(w, s.Version)
	h.answer(w, r, http.StatusOK, toStream(s))
}

// UpdateStream serves PATCH /v1/streams/{id}.
func (h *handlers) UpdateStream(w http.ResponseWriter, r *http.Request, id wire.StreamID, params wire.UpdateStreamParams) {
	var body wire.StreamUpdate
	if err := decode(r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	want, err := ifMatch(params.IfMatch)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	before, s, err := h.update(r.Context(), id, body, want)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.changed(r.Context(), id, "stream.updated", "info", difference(before, s))
	setETag(w, s.Version)
	h.answer(w, r, http.StatusOK, toStream(s))
}

// update changes the stream: once when want names a version, and otherwise
// again and again until no other writer comes between its read and its write.
func (h *handlers) update(ctx context.Context, id string, change wire.StreamUpdate, want int64) (before, after stream.Stream, err error) {
	for range updateTries {
		before, err = h.stream(ctx, id)
		if err != nil {
			return before, after, err
		}
		if want != 0 && before.Version != want {
			return before, after, preconditionFailed(fmt.Sprintf("Stream %q", id))
		}
		after = applyUpdate(before, change)
		after.UpdatedAt = h.now()
		if err = h.checkStream(ctx, after); err != nil {
			return before, after, err
		}
		after, err = h.store.UpdateStream(ctx, after)
		if !errors.Is(err, stream.ErrConflict) {
			return before, after, about(err, "stream %q", id)
		}
		if want != 0 {
			return before, after, preconditionFailed(fmt.Sprintf("Stream %q", id))
		}
	}
	return before, after, about(err, "stream %q", id)
}

// difference tells operators what an update changed.
func difference(before, after stream.Stream) string {
	var parts []string
	add := func(name string, old, now any) {
		if old != now {
			parts = append(parts, fmt.Sprintf("%s %v → %v", name, old, now))
		}
	}
	add("name", strconv.Quote(before.Name), strconv.Quote(after.Name))
	add("profile", before.Profile, after.Profile)
	add("disabled", before.Disabled, after.Disabled)
	add("grace_seconds", before.Grace, after.Grace)
	add("hold_back_seconds", before.HoldBack, after.HoldBack)
	add("window_seconds", before.Window, after.Window)
	add("priority", before.Priority, after.Priority)
	add("require", fmt.Sprint(before.Require), fmt.Sprint(after.Require))
	add("prefer", fmt.Sprint(before.Prefer), fmt.Sprint(after.Prefer))
	add("degrade", before.Degrade, after.Degrade)
	if len(parts) == 0 {
		return fmt.Sprintf("nothing changed, version %d", after.Version)
	}
	return fmt.Sprintf("%s, version %d", strings.Join(parts, ", "), after.Version)
}

// DeleteStream serves DELETE /v1/streams/{id}. A stream that is missing is deleted
// too while something of it goes on: state has lost it, and nothing else ends it.
func (h *handlers) DeleteStream(w http.ResponseWriter, r *http.Request, id wire.StreamID) {
	_, err := h.stream(r.Context(), id)
	del := h.store.DeleteStream
	if errors.Is(err, stream.ErrNotFound) && stream.CheckID(id) == nil {
		on, lookErr := h.goesOn(r.Context(), id)
		if lookErr != nil {
			err = about(lookErr, "what goes on of stream %q", id)
		} else if on {
			err, del = nil, h.store.DeleteLost
		}
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if err := del(r.Context(), id); err != nil {
		h.fail(w, r, about(err, "stream %q", id))
		return
	}
	h.logger.Info("stream deleted", "stream", id)
	h.notify(r.Context(), id)
	w.WriteHeader(http.StatusNoContent)
}

// goesOn reports whether a stream is being published, placed, or run by a worker.
func (h *handlers) goesOn(ctx context.Context, id string) (bool, error) {
	for _, list := range []func(context.Context) ([]string, error){h.store.Publishing, h.store.ActiveStreams} {
		ids, err := list(ctx)
		if err != nil || slices.Contains(ids, id) {
			return err == nil, err
		}
	}
	reports, err := h.store.Reports(ctx)
	return slices.ContainsFunc(reports, func(r store.ReportSeen) bool { return r.Runs[id] > 0 }), err
}

// RotateStreamKey serves POST /v1/streams/{id}/key.
func (h *handlers) RotateStreamKey(w http.ResponseWriter, r *http.Request, id wire.StreamID) {
	if _, err := h.stream(r.Context(), id); err != nil {
		h.fail(w, r, err)
		return
	}
	key, hash := auth.NewStreamKey()
	if err := h.store.SetStreamKey(r.Context(), id, hash); err != nil {
		h.fail(w, r, about(err, "stream %q", id))
		return
	}
	h.changed(r.Context(), id, "key.rotated", "info", "the stream key was replaced")
	h.answer(w, r, http.StatusOK, wire.StreamKey{ID: id, Key: key})
}

// ListStreamEvents serves GET /v1/streams/{id}/events.
func (h *handlers) ListStreamEvents(w http.ResponseWriter, r *http.Request, id wire.StreamID, params wire.ListStreamEventsParams) {
	limit, after, err := page("events", params.Limit, params.After)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if _, err := h.stream(r.Context(), id); err != nil {
		h.fail(w, r, err)
		return
	}
	from := after
	if from == "" {
		from = firstEvent
	}
	events, err := h.store.Events(r.Context(), id, from, limit)
	if errors.Is(err, stream.ErrInvalid) {
		err = badCursor()
	}
	if err != nil {
		h.fail(w, r, about(err, "history of stream %q", id))
		return
	}
	out := wire.EventPage{Items: make([]wire.Event, 0, len(events))}
	for _, e := range events {
		out.Items = append(out.Items, toEvent(e))
		after = e.ID
	}
	out.Next = cursor("events", after)
	h.answer(w, r, http.StatusOK, out)
}

// stream reads a stream; its errors are problems.
func (h *handlers) stream(ctx context.Context, id string) (stream.Stream, error) {
	if stream.CheckID(id) != nil {
		return stream.Stream{}, notFound(id)
	}
	s, err := h.store.GetStream(ctx, id)
	return s, about(err, "stream %q", id)
}

// notFound is what there is to say of a stream that there is not.
func notFound(id string) error {
	if stream.CheckID(id) == nil {
		return about(stream.ErrNotFound, "stream %q", id)
	}
	p := newProblem(http.StatusNotFound, "not-found", "Not found", "%q can't be a stream's id: %s.", clip(id), idGrammar)
	p.cause = stream.ErrNotFound
	return p
}

// checkStream validates s and that its profile exists.
func (h *handlers) checkStream(ctx context.Context, s stream.Stream) error {
	if err := s.Validate(); err != nil {
		return about(err, "stream")
	}
	_, err := h.store.GetProfile(ctx, s.Profile)
	if errors.Is(err, stream.ErrNotFound) {
		return invalidField("profile", "there is no profile %q", s.Profile)
	}
	return about(err, "profile %q", s.Profile)
}

// changed records an operator's change and tells the other roles to look.
func (h *handlers) changed(ctx context.Context, id, kind, level, message string) {
	h.logger.Info("stream changed", "stream", id, "event", kind, "message", message)
	h.event(ctx, id, kind, level, message)
	h.notify(ctx, id)
}

// event adds to the stream's history. A history that can't be written does
// not undo what it tells of.
func (h *handlers) event(ctx context.Context, id, kind, level, message string) {
	e := stream.Event{Stream: id, Time: h.now(), Type: kind, Level: level, Message: message}
	if err := h.store.AddEvent(ctx, e); err != nil {
		h.logger.Warn("adding an event", "stream", id, "event", kind, "error", err)
	}
}

// notify is a hint: whoever misses it sees the change at its next look.
func (h *handlers) notify(ctx context.Context, id string) {
	if err := h.store.Notify(ctx, id); err != nil {
		h.logger.Warn("notifying", "stream", id, "error", err)
	}
}
