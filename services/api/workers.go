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
	reports, err := h.store.Reports(r.Context())
	if err != nil {
		h.fail(w, r, about(err, "list of workers"))
		return
	}
	for _, seen := range reports {
		if seen.Worker != id {
			continue
		}
		ledgers, err := h.refreshed(r.Context())
		if err != nil {
			h.fail(w, r, err)
			return
		}
		worker, err := h.worker(r.Context(), ledgers, seen)
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
	return toWorker(seen, held{streams: ledger, loads: ledgers.Load(seen.Worker, nil)}), nil
}

// refreshed are all ledgers as they are now.
func (h *handlers) refreshed(ctx context.Context) (*store.Ledgers, error) {
	if _, err := h.ledgers.Refresh(ctx); err != nil {
		return nil, about(err, "ledgers of the workers")
	}
	return h.ledgers, nil
}

func workerID(seen store.ReportSeen) string { return seen.Worker }
