package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Proposal is a placement to commit. Its Epoch, State, Price and CommittedAt are
// given by the commit.
type Proposal struct {
	// Placement says in Reserved what to reserve at its worker, the Device's own
	// resource first.
	Placement stream.Placement
	// Limits bound the resources of Placement.Reserved, one for each, in its order; a
	// limit of 2^53 or more bounds nothing. Used should not hold what the stream's
	// own former placement is measured to use.
	Limits []capacity.Limit
	// ExpectEpoch is the epoch of the placement that the proposer read, in any
	// state; 0 when there was none.
	ExpectEpoch uint64
	// Evict are the placements that are ended for it, and whose reservations are
	// returned, as by Release.
	Evict []Evicted
}

// Evicted is a placement that goes for another one.
type Evicted struct {
	Stream string `json:"stream"`
	Epoch  uint64 `json:"epoch,string"`
}

// maxHistory is how long a former origin is remembered at most.
const maxHistory = stream.MaxWindow + originLinger

// Commit makes a placement, atomically or not at all: the ledger of each resource
// is checked, the reservations are made, the epoch raised, the placement written.
// The stream's former placement is fenced by that, and its reservations returned,
// whatever its worker. A resource has room when
//
//	max(Σ others' reserved, used + Σ others' reserved within stream.RampHold) + amount ≤ limit
//
// Errors: ErrConflict when the placement is not the one expected, or one of those to
// evict is not placed at its epoch; ErrNoRoom, as a
// *NoRoomError, for the first resource without room.
func (s *Store) Commit(ctx context.Context, p Proposal) (uint64, error) {
	pl := p.Placement
	if pl.Stream == "" || pl.Worker == "" {
		return 0, fmt.Errorf("committing %q on %q: %w", pl.Stream, pl.Worker, stream.ErrInvalid)
	}
	if p.Limits == nil {
		p.Limits = []capacity.Limit{} // each resource needs one
	}
	reserved, limits, wanted, err := reservations(pl.Device, pl.Reserved, p.Limits)
	if err != nil {
		return 0, fmt.Errorf("committing %s on %s: %w", pl.Stream, pl.Worker, err)
	}
	pl.Price = pl.Reserved[0].Amount
	doc, err := json.Marshal(pl)
	if err != nil {
		return 0, fmt.Errorf("encoding the placement of %s: %w", pl.Stream, err)
	}
	src, err := json.Marshal(pl.Source)
	if err != nil {
		return 0, fmt.Errorf("encoding the source of %s: %w", pl.Stream, err)
	}
	evict, err := json.Marshal(append([]Evicted{}, p.Evict...))
	if err != nil {
		return 0, fmt.Errorf("encoding what goes for %s: %w", pl.Stream, err)
	}
	out, err := s.run(ctx, s.state, "commit",
		[]string{key("placement", pl.Stream), keyEpochs, preWorkerStreams + pl.Worker, keyActive, key("origins", pl.Stream)},
		append([]any{pl.Stream, p.ExpectEpoch, pl.Worker, pl.Device, doc, src, reserved, limits,
			preWorkerStreams, maxHistory.Milliseconds(), evict}, wanted...)...)
	if err != nil {
		return 0, fmt.Errorf("committing the placement of %s: %w", pl.Stream, err)
	}
	epoch, err := strconv.ParseUint(out[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("committing the placement of %s: epoch %q: %w", pl.Stream, out[0], err)
	}
	for _, v := range p.Evict {
		s.released(ctx, v.Stream)
	}
	// From here on, the tail takes nothing of the former epoch. Without live
	// there is no tail to write to; the epoch in state fences it afterwards too.
	if _, err := s.run(ctx, s.live, "hash_raise", []string{key("tail", pl.Stream)}, "fence", epoch); err != nil {
		s.log.Warn("fencing the tail failed", "stream", pl.Stream, "epoch", epoch, "error", err)
	}
	return epoch, nil
}

// placementFields are what decodePlacement takes, in its order.
var placementFields = []string{"json", "epoch", "state", "device", "reserved", "source", "committed", "moved", "ended"}

// decodePlacement takes from the json what never changes, the rest from the hash.
func decodePlacement(id string, v []any) (stream.Placement, error) {
	var p stream.Placement
	field := func(i int) string { f, _ := v[i].(string); return f }
	if field(0) == "" {
		return p, missing(redis.Nil, "placement of stream", id)
	}
	var errs [4]error
	errs[0] = json.Unmarshal([]byte(field(0)), &p)
	p.Epoch, errs[1] = strconv.ParseUint(field(1), 10, 64)
	p.State = stream.PlacementState(field(2))
	p.Device, p.Reserved, p.Source = field(3), nil, stream.Source{}
	errs[2] = json.Unmarshal([]byte(field(4)), &p.Reserved)
	errs[3] = json.Unmarshal([]byte(field(5)), &p.Source)
	p.CommittedAt, p.MovedAt = micros(field(6)), micros(field(7))
	if err := errors.Join(errs[:]...); err != nil {
		return p, fmt.Errorf("decoding the placement of %s: %w", id, err)
	}
	if len(p.Reserved) == 0 {
		return p, fmt.Errorf("decoding the placement of %s: nothing is reserved", id)
	}
	p.Price = p.Reserved[0].Amount
	return p, nil
}

// Placement returns a stream's last placement in whatever state, or ErrNotFound.
func (s *Store) Placement(ctx context.Context, id string) (stream.Placement, error) {
	v, err := s.state.HMGet(ctx, key("placement", id), placementFields...).Result()
	if err != nil {
		return stream.Placement{}, missing(err, "placement of stream", id)
	}
	return decodePlacement(id, v)
}

// Placements returns what a worker should run or bring to an end: its placements
// that have not ended, by stream.
func (s *Store) Placements(ctx context.Context, worker string) ([]stream.Placement, error) {
	ids, err := s.state.SMembers(ctx, preWorkerStreams+worker).Result()
	if err != nil {
		return nil, fmt.Errorf("listing the placements of worker %s: %w", worker, err)
	}
	sort.Strings(ids)
	list := make([]stream.Placement, 0, len(ids))
	if len(ids) == 0 {
		return list, nil
	}
	cmds := make([]*redis.SliceCmd, len(ids))
	if _, err := s.state.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			cmds[i] = p.HMGet(ctx, key("placement", id), placementFields...)
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("reading the placements of worker %s: %w", worker, err)
	}
	for i, c := range cmds {
		p, err := decodePlacement(ids[i], c.Val())
		if errors.Is(err, stream.ErrNotFound) || (err == nil && (p.Worker != worker || p.State == stream.PlacementEnded)) {
			continue // moved or ended between the two
		}
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// UpdateSource points a placement at another session of its broadcast. Errors:
// ErrNotFound, ErrFenced; ErrConflict when it is ending or ended.
func (s *Store) UpdateSource(ctx context.Context, id string, epoch uint64, src stream.Source) error {
	doc, err := json.Marshal(src)
	if err != nil {
		return fmt.Errorf("encoding the source of %s: %w", id, err)
	}
	return s.change(ctx, "placement_source", id, key("placement", id), epoch, doc)
}

// SetEnding tells the worker to bring a placement to its end. One that has
// ended stays so. Errors: ErrNotFound, ErrFenced.
func (s *Store) SetEnding(ctx context.Context, id string, epoch uint64) error {
	return s.change(ctx, "placement_ending", id, key("placement", id), epoch)
}

func (s *Store) change(ctx context.Context, script, id, k string, args ...any) error {
	if _, err := s.run(ctx, s.state, script, []string{k}, args...); err != nil {
		return fmt.Errorf("changing the placement of %s at epoch %v: %w", id, args[0], err)
	}
	return nil
}

// Release ends a placement and returns its reservations, once: repeating it, and
// releasing an epoch that a later commit has replaced, does nothing. An epoch
// that was never given is ErrConflict. Watchers are notified: what waits for
// capacity may have got it.
func (s *Store) Release(ctx context.Context, id string, epoch uint64) error {
	out, err := s.run(ctx, s.state, "placement_release", []string{key("placement", id)}, id, epoch)
	if err != nil {
		return fmt.Errorf("releasing the placement of %s at epoch %d: %w", id, epoch, err)
	}
	if out[0] == "1" {
		s.released(ctx, id)
	}
	return nil
}

// released tells those who watch.
func (s *Store) released(ctx context.Context, id string) {
	if err := s.Notify(ctx, id); err != nil {
		s.log.Debug("notifying failed; the others find out by polling", "stream", id, "error", err)
	}
}

// DeletePlacement forgets a placement that has ended; the epoch counter goes on.
// ErrConflict when it has not ended or is another epoch's.
func (s *Store) DeletePlacement(ctx context.Context, id string, epoch uint64) error {
	if _, err := s.run(ctx, s.state, "placement_delete", []string{key("placement", id), key("origins", id)}, epoch); err != nil {
		return fmt.Errorf("deleting the placement of %s at epoch %d: %w", id, epoch, err)
	}
	return nil
}

// RaiseEpoch makes the stream's next epoch higher than atLeast, for epochs that
// workers report and state no longer knows. It never lowers the counter.
func (s *Store) RaiseEpoch(ctx context.Context, id string, atLeast uint64) error {
	if _, err := s.run(ctx, s.state, "hash_raise", []string{keyEpochs}, id, atLeast); err != nil {
		return fmt.Errorf("raising the epoch of %s to %d: %w", id, atLeast, err)
	}
	return nil
}

// ActiveStreams returns the streams whose placement has not ended, in order.
func (s *Store) ActiveStreams(ctx context.Context) ([]string, error) {
	ids, err := s.state.SMembers(ctx, keyActive).Result()
	if err != nil {
		return nil, fmt.Errorf("listing the active streams: %w", err)
	}
	sort.Strings(ids)
	return ids, nil
}
