package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// Proposal is a placement to commit. Its Epoch, State and CommittedAt are given
// by the commit.
type Proposal struct {
	Placement stream.Placement
	// Limit is the device's budget in px/s.
	Limit int64
	// ExpectEpoch is the epoch of the placement that the proposer read, in any
	// state; 0 when there was none.
	ExpectEpoch uint64
}

// maxHistory is how long a former origin is remembered at most.
const maxHistory = stream.MaxWindow + originLinger

// Commit makes a placement, atomically or not at all: the ledger is checked, the
// reservation added, the epoch raised, the placement written. The stream's
// former placement is fenced by that, and its reservation returned. Errors:
// ErrConflict when the placement is not the one expected; ErrNoRoom, with the
// numbers, when the device's reservations would exceed the limit.
func (s *Store) Commit(ctx context.Context, p Proposal) (uint64, error) {
	pl := p.Placement
	if pl.Price < 1 || pl.Stream == "" || pl.Worker == "" || pl.Device == "" {
		return 0, fmt.Errorf("committing %q on %q/%q at %d px/s: %w", pl.Stream, pl.Worker, pl.Device, pl.Price, stream.ErrInvalid)
	}
	doc, err := json.Marshal(pl)
	if err != nil {
		return 0, fmt.Errorf("encoding the placement of %s: %w", pl.Stream, err)
	}
	src, err := json.Marshal(pl.Source)
	if err != nil {
		return 0, fmt.Errorf("encoding the source of %s: %w", pl.Stream, err)
	}
	out, err := s.run(ctx, s.state, "commit",
		[]string{key("placement", pl.Stream), keyEpochs, keyLedger(pl.Worker, pl.Device), key("ledger-devices", pl.Worker),
			preWorkerStreams + pl.Worker, keyActive, key("origins", pl.Stream)},
		pl.Stream, p.ExpectEpoch, pl.Worker, pl.Device, pl.Price, p.Limit, doc, src,
		preLedger, preWorkerStreams, maxHistory.Milliseconds())
	if err != nil {
		return 0, fmt.Errorf("committing the placement of %s: %w", pl.Stream, err)
	}
	epoch, err := strconv.ParseUint(out[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("committing the placement of %s: epoch %q: %w", pl.Stream, out[0], err)
	}
	// From here on, the tail takes nothing of the former epoch. Without live
	// there is no tail to write to; the epoch in state fences it afterwards too.
	if _, err := s.run(ctx, s.live, "hash_raise", []string{key("tail", pl.Stream)}, "fence", epoch); err != nil {
		s.log.Warn("fencing the tail failed", "stream", pl.Stream, "epoch", epoch, "error", err)
	}
	return epoch, nil
}

// placementFields are what decodePlacement takes, in its order.
var placementFields = []string{"json", "epoch", "state", "price", "source", "committed", "ended"}

func decodePlacement(id string, v []any) (stream.Placement, error) {
	var p stream.Placement
	field := func(i int) string { f, _ := v[i].(string); return f }
	if field(0) == "" {
		return p, missing(redis.Nil, "placement of stream", id)
	}
	err := json.Unmarshal([]byte(field(0)), &p)
	var errs [3]error
	p.Epoch, errs[0] = strconv.ParseUint(field(1), 10, 64)
	p.State = stream.PlacementState(field(2))
	p.Price, errs[1] = strconv.ParseInt(field(3), 10, 64)
	p.Source = stream.Source{}
	errs[2] = json.Unmarshal([]byte(field(4)), &p.Source)
	p.CommittedAt = micros(field(5))
	if err := errors.Join(err, errors.Join(errs[:]...)); err != nil {
		return p, fmt.Errorf("decoding the placement of %s: %w", id, err)
	}
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

// Shrink sets what a placement has reserved, in px/s, once its price is known.
// Less always fits; more only while the device's reservations stay within the
// limit of the commit. Errors: ErrNotFound, ErrFenced, ErrNoRoom; ErrConflict
// when the placement has ended.
func (s *Store) Shrink(ctx context.Context, id string, epoch uint64, price int64) error {
	if price < 1 {
		return fmt.Errorf("reserving %d px/s for %s: %w", price, id, stream.ErrInvalid)
	}
	if _, err := s.run(ctx, s.state, "placement_shrink", []string{key("placement", id)}, id, epoch, price, preLedger); err != nil {
		return fmt.Errorf("changing the reservation of %s at epoch %d: %w", id, epoch, err)
	}
	return nil
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

// Release ends a placement and returns its reservation, once: repeating it, and
// releasing an epoch that a later commit has replaced, does nothing. An epoch
// that was never given is ErrConflict.
func (s *Store) Release(ctx context.Context, id string, epoch uint64) error {
	if _, err := s.run(ctx, s.state, "placement_release", []string{key("placement", id), keyActive},
		id, epoch, preLedger, preWorkerStreams); err != nil {
		return fmt.Errorf("releasing the placement of %s at epoch %d: %w", id, epoch, err)
	}
	return nil
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

// Ledger returns what is reserved on a worker: device → stream → px/s. A device
// without a reservation may be missing.
func (s *Store) Ledger(ctx context.Context, worker string) (map[string]map[string]int64, error) {
	devices, err := s.state.SMembers(ctx, key("ledger-devices", worker)).Result()
	if err != nil {
		return nil, fmt.Errorf("listing the devices of worker %s: %w", worker, err)
	}
	ledger := make(map[string]map[string]int64, len(devices))
	for _, d := range devices {
		entries, err := s.state.HGetAll(ctx, keyLedger(worker, d)).Result()
		if err != nil {
			return nil, fmt.Errorf("reading the ledger of %s/%s: %w", worker, d, err)
		}
		ledger[d] = make(map[string]int64, len(entries))
		for id, v := range entries {
			px, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("the ledger of %s/%s, stream %s: %w", worker, d, id, err)
			}
			ledger[d][id] = px
		}
	}
	return ledger, nil
}
