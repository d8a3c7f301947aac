package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// ListWorkers serves GET /v1/workers.
func (h *handlers) ListWorkers(w http.ResponseWriter, r *http.Request, params wire.ListWorkersParams) {
	limit, after, err := page("workers", params.Limit, params.After)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	reports, err := h.store.Reports(r.Context())
	if err != nil {
		h.fail(w, r, about(err, "list of workers"))
		return
	}
	ledgers, err := h.refreshed(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	items, next := slicePage(reports, workerID, after, limit)
	out := wire.WorkerPage{Items: make([]wire.Worker, 0, len(items)), Next: cursor("workers", next)}
	for _, seen := range items {
		worker, err := h.worker(r.Context(), ledgers, seen)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		out.Items = append(out.Items, worker)
	}
	h.answer(w, r, http.StatusOK, out)
}

// GetWorker serves GET /v1/workers/{id}.
func (h *handlers) GetWorker(w http.ResponseWriter, r *http.Request, id wire.WorkerID) {
	worker, err := h.oneWorker(r.Context(), id)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answer(w, r, http.StatusOK, worker)
}

// oneWorker is a worker that reports, or an error.
func (h *handlers) oneWorker(ctx context.Context, id string) (wire.Worker, error) {
	reports, err := h.store.Reports(ctx)
	if err != nil {
		return wire.Worker{}, about(err, "list of workers")
	}
	i := slices.IndexFunc(reports, func(seen store.ReportSeen) bool { return seen.Worker == id })
	if i < 0 {
		return wire.Worker{}, about(stream.ErrNotFound, "worker %q that reports", clip(id))
	}
	ledgers, err := h.refreshed(ctx)
	if err != nil {
		return wire.Worker{}, err
	}
	return h.worker(ctx, ledgers, reports[i])
}

// DrainWorker serves PUT /v1/workers/{id}/drain. It needs the worker to report,
// so that a misspelt name is not taken for a wish that was granted.
func (h *handlers) DrainWorker(w http.ResponseWriter, r *http.Request, id wire.WorkerID) {
	_, err := h.oneWorker(r.Context(), id)
	if err == nil {
		err = about(h.store.PutDrain(r.Context(), id, store.Drain{Since: time.Now().UTC()}), "drain of worker %q", clip(id))
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.GetWorker(w, r, id)
}

// UndrainWorker serves DELETE /v1/workers/{id}/drain, also for a worker that is
// away.
func (h *handlers) UndrainWorker(w http.ResponseWriter, r *http.Request, id wire.WorkerID) {
	had, err := h.store.DeleteDrain(r.Context(), id)
	if err != nil {
		h.fail(w, r, about(err, "drain of worker %q", clip(id)))
		return
	}
	if !had {
		if _, err := h.oneWorker(r.Context(), id); err != nil {
			h.fail(w, r, err)
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// ListDevices serves GET /v1/devices.
func (h *handlers) ListDevices(w http.ResponseWriter, r *http.Request, params wire.ListDevicesParams) {
	limit, after, err := page("devices", params.Limit, params.After)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	reports, err := h.store.Reports(r.Context())
	if err != nil {
		h.fail(w, r, about(err, "list of workers"))
		return
	}
	ledgers, err := h.refreshed(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	type place struct {
		seen   store.ReportSeen
		device int
	}
	var all []place
	for _, seen := range reports {
		for i := range seen.Devices {
			all = append(all, place{seen, i})
		}
	}
	items, next := slicePage(all, func(p place) string { return p.seen.Worker + "/" + p.seen.Devices[p.device].ID }, after, limit)
	out := wire.DevicePage{Items: make([]wire.Device, 0, len(items)), Next: cursor("devices", next)}
	var worker wire.Worker
	for _, p := range items {
		if worker.ID != p.seen.Worker {
			if worker, err = h.worker(r.Context(), ledgers, p.seen); err != nil {
				h.fail(w, r, err)
				return
			}
		}
		out.Items = append(out.Items, worker.Devices[p.device])
	}
	h.answer(w, r, http.StatusOK, out)
}

// worker joins a report with what streams hold: each stream's share as it is in
// Redis now, the sums as of the last refresh.
func (h *handlers) worker(ctx context.Context, ledgers *store.Ledgers, seen store.ReportSeen) (wire.Worker, error) {
	ledger, err := h.store.Ledger(ctx, seen.Worker)
	if err != nil {
		return wire.Worker{}, about(err, "ledger of worker %q", seen.Worker)
	}
	return toWorker(seen, held{streams: ledger, loads: ledgers.Load(seen.Worker, nil)}, h.draining(seen)), nil
}

// draining says why a worker takes nothing new, as the controller sees it; "" when
// it does.
func (h *handlers) draining(seen store.ReportSeen) string {
	why := seen.Draining()
	if why == "" && h.nodes != nil {
		why = h.nodes.Draining(seen.NomadNode)
	}
	return why
}

// refreshed are all ledgers as they are now.
func (h *handlers) refreshed(ctx context.Context) (*store.Ledgers, error) {
	if _, err := h.ledgers.Refresh(ctx); err != nil {
		return nil, about(err, "ledgers of the workers")
	}
	return h.ledgers, nil
}

func workerID(seen store.ReportSeen) string { return seen.Worker }
