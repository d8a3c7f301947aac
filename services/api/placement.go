package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// maxCount bounds how many streams a simulation places.
const maxCount = 1000

// ExplainPlacement serves GET /v1/placement/explain.
func (h *handlers) ExplainPlacement(w http.ResponseWriter, r *http.Request, params wire.ExplainPlacementParams) {
	out, err := h.explain(r.Context(), params.Stream)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answer(w, r, http.StatusOK, out)
}

func (h *handlers) explain(ctx context.Context, id string) (wire.Explanation, error) {
	s, err := h.stream(ctx, id)
	if err != nil {
		return wire.Explanation{}, err
	}
	request, err := h.request(ctx, s)
	if err != nil {
		return wire.Explanation{}, err
	}
	p, placed, err := optional(h.store.Placement(ctx, id))
	if err != nil {
		return wire.Explanation{}, about(err, "placement of stream %q", id)
	}
	b, _, err := optional(h.store.Broadcast(ctx, id))
	if err != nil {
		return wire.Explanation{}, about(err, "broadcast of stream %q", id)
	}
	run, reported, err := optional(h.store.Status(ctx, id))
	if err != nil {
		return wire.Explanation{}, about(err, "status of stream %q", id)
	}
	if reported && b.Session != nil && run.Session == b.Session.ID {
		request.Media = run.Media // as the controller knows it
	}
	fleet, err := h.fleet(ctx)
	if err != nil {
		return wire.Explanation{}, err
	}
	if placed && p.Broadcast == b.ID {
		request.Stay = p.Worker
	}
	placed = placed && p.State != stream.PlacementEnded
	if placed {
		request.Own.Worker = p.Worker
		request.Own.Reserved, request.Own.Young = h.ledgers.Held(p.Worker, id)
	}
	var queue *wire.QueuePlace
	if waits := b.State == stream.BroadcastLive && b.WaitingSince != nil; waits || !placed {
		request.Failover = waits && placed // it has lost its worker: else it would not wait
		if queue, err = h.queue(ctx, fleet, &request, b); err != nil {
			return wire.Explanation{}, err
		}
	}
	e, err := placement.Explain(fleet, request)
	if err != nil {
		return wire.Explanation{}, about(err, "stream %q", id)
	}
	out := toExplanation(e, fleet.Policy)
	out.Stream, out.Queue = &s.ID, queue
	for i, d := range out.Devices {
		out.Devices[i].Current = placed && d.Worker == p.Worker && d.Device == p.Device
	}
	return out, nil
}

// SimulatePlacement serves POST /v1/placement/simulate.
func (h *handlers) SimulatePlacement(w http.ResponseWriter, r *http.Request) {
	var body wire.SimulateRequest
	if err := decode(r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	out, err := h.simulate(r.Context(), body)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answer(w, r, http.StatusOK, out)
}

func (h *handlers) simulate(ctx context.Context, body wire.SimulateRequest) (wire.Simulation, error) {
	var out wire.Simulation
	if body.Count < 1 || body.Count > maxCount {
		return out, invalidField("count", "%d is not between 1 and %d", body.Count, maxCount)
	}
	s := applyUpdate(newStream("simulated"), wire.StreamUpdate{
		Profile: &body.Profile, Priority: body.Priority, Require: &body.Require, Prefer: &body.Prefer, Degrade: &body.Degrade,
	})
	if err := h.checkStream(ctx, s); err != nil {
		return out, err
	}
	request, err := h.request(ctx, s)
	if err != nil {
		return out, err
	}
	fleet, err := h.fleet(ctx)
	if err != nil {
		return out, err
	}
	decisions, err := placement.Simulate(fleet, request, body.Count)
	if err != nil && !errors.Is(err, stream.ErrNoRoom) {
		return out, about(err, "simulation")
	}
	out = wire.Simulation{Count: body.Count, Placed: len(decisions), Placements: make([]wire.Decision, len(decisions))}
	if err != nil {
		out.Refusal = nonZero(err.Error())
	}
	for i, d := range decisions {
		out.Placements[i] = toDecision(d)
		fleet.Apply(d)
	}
	next, err := placement.Explain(fleet, request)
	if err != nil {
		return out, about(err, "simulation")
	}
	out.Next = toExplanation(next, fleet.Policy)
	return out, nil
}

// request is what the controller would ask for the stream, had it no placement.
func (h *handlers) request(ctx context.Context, s stream.Stream) (placement.Request, error) {
	profile, err := h.store.GetProfile(ctx, s.Profile)
	if err != nil {
		return placement.Request{}, about(err, "profile %q", s.Profile)
	}
	return requestOf(s, profile), nil
}

func requestOf(s stream.Stream, profile stream.Profile) placement.Request {
	return placement.Request{
		Stream: s.ID, Profile: profile, Require: s.Require, Prefer: s.Prefer, Priority: s.Priority, Degrade: s.Degrade,
	}
}

// fleet is a snapshot of all workers that report, read from Redis.
func (h *handlers) fleet(ctx context.Context) (*placement.Snapshot, error) {
	reports, err := h.store.Reports(ctx)
	if err != nil {
		return nil, about(err, "list of workers")
	}
	ledgers, err := h.refreshed(ctx)
	if err != nil {
		return nil, err
	}
	s := &placement.Snapshot{Workers: make([]placement.Worker, len(reports))}
	takers := 0 // as the controller counts them
	for i, seen := range reports {
		seen.Drain = h.draining(seen) != ""
		if seen.Ready && !seen.Drain {
			takers++
		}
		s.Workers[i] = placement.Worker{Report: seen.Report, HeartbeatAge: seen.Age, Ledger: ledgers.Load(seen.Worker, nil)}
	}
	s.Policy = h.policy.For(takers)
	return s, nil
}
