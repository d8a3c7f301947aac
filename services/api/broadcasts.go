package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// ListBroadcasts serves GET /v1/broadcasts.
func (h *handlers) ListBroadcasts(w http.ResponseWriter, r *http.Request, params wire.ListBroadcastsParams) {
	limit, after, err := page("broadcasts", params.Limit, params.After)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	ids, err := h.busy(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	items, next := slicePage(ids, func(id string) string { return id }, after, limit)
	out := wire.StreamStatusPage{Items: make([]wire.StreamStatus, 0, len(items)), Next: cursor("broadcasts", next)}
	for _, id := range items {
		status, err := h.status(r.Context(), id)
		if errors.Is(err, stream.ErrNotFound) {
			continue // deleted since
		}
		if err != nil {
			h.fail(w, r, err)
			return
		}
		out.Items = append(out.Items, status)
	}
	w.Header().Set("Cache-Control", "no-store")
	h.answer(w, r, http.StatusOK, out)
}

// busy are the streams that an ingest node has a publisher of, and those with a
// placement that has not ended.
func (h *handlers) busy(ctx context.Context) ([]string, error) {
	active, err := h.store.ActiveStreams(ctx)
	if err != nil {
		return nil, about(err, "list of placements")
	}
	nodes, err := h.store.IngestReports(ctx)
	if err != nil {
		return nil, about(err, "reports of the ingest nodes")
	}
	ids := map[string]bool{}
	for _, id := range active {
		ids[id] = true
	}
	for _, n := range nodes {
		for _, p := range n.Paths {
			if p.Ready {
				ids[p.Stream] = true
			}
		}
	}
	return slices.Collect(maps.Keys(ids)), nil
}
