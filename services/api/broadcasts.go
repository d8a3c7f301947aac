package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// ListBroadcasts serves GET /v1/broadcasts.
func (h *handlers) ListBroadcasts(w http.ResponseWriter, r *http.Request, params wire.ListBroadcastsParams) {
	limit, after, err := page("broadcasts", params.Limit, params.After)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	ids, err := h.busy(r.Context(), after)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	items, next := slicePage(ids, func(id string) string { return id }, after, limit)
	statuses, err := h.statuses(r.Context(), items)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	out := wire.StreamStatusPage{Items: statuses, Next: cursor("broadcasts", next)}
	w.Header().Set("Cache-Control", "no-store")
	h.answer(w, r, http.StatusOK, out)
}

// busy are the streams behind after that an ingest node has a publisher of, and those
// with a placement that has not ended.
func (h *handlers) busy(ctx context.Context, after string) ([]string, error) {
	active, err := h.store.ActiveStreams(ctx)
	if err != nil {
		return nil, about(err, "list of placements")
	}
	publishing, err := h.store.Publishing(ctx)
	if err != nil {
		return nil, about(err, "publishers of the ingest nodes")
	}
	ids := slices.DeleteFunc(append(active, publishing...), func(id string) bool { return id <= after })
	slices.Sort(ids)
	return slices.Compact(ids), nil
}
