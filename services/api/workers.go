package api

import (
	"context"
	"net/http"

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
	items, next := slicePage(reports, workerID, after, limit)
	out := wire.WorkerPage{Items: make([]wire.Worker, 0, len(items)), Next: cursor("workers", next)}
	for _, seen := range items {
		worker, err := h.worker(r.Context(), seen)
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
	reports, err := h.store.Reports(r.Context())
	if err != nil {
		h.fail(w, r, about(err, "list of workers"))
		return
	}
	for _, seen := range reports {
		if seen.Worker != id {
			continue
		}
		worker, err := h.worker(r.Context(), seen)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		h.answer(w, r, http.StatusOK, worker)
		return
	}
	h.fail(w, r, about(stream.ErrNotFound, "worker %q that reports", clip(id)))
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
	var all []wire.Device
	for _, seen := range reports {
		worker, err := h.worker(r.Context(), seen)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		all = append(all, worker.Devices...)
	}
	items, next := slicePage(all, func(d wire.Device) string { return d.Worker + "/" + d.ID }, after, limit)
	h.answer(w, r, http.StatusOK, wire.DevicePage{Items: nonNil(items), Next: cursor("devices", next)})
}

func (h *handlers) worker(ctx context.Context, seen store.ReportSeen) (wire.Worker, error) {
	ledger, err := h.store.Ledger(ctx, seen.Worker)
	if err != nil {
		return wire.Worker{}, about(err, "ledger of worker %q", seen.Worker)
	}
	return toWorker(seen, ledger), nil
}

func workerID(seen store.ReportSeen) string { return seen.Worker }
