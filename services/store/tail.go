package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// boundStep is how far the bound of a stream's numbers in state is raised at a
// time: one fsync for that many segments.
const boundStep = 64

// bounds remembers the bounds that this process has written to state, to write
// them only when they must rise.
type bounds struct {
	mu    sync.Mutex
	known map[string]uint64
}

func (b *bounds) get(id string) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.known[id]
}

func (b *bounds) set(id string, v uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.known[id] = max(b.known[id], v)
}

func (b *bounds) forget(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.known, id)
}

// stateLimit bounds what a tail's writer waits for state: segments are listed
// every few seconds, and must go on when state hangs.
const stateLimit = 300 * time.Millisecond

// fencedByState checks an epoch against the highest ever given: it covers live
// having lost its fence. With state away, live alone decides; when they are one
// server, its error is returned at once.
func (s *Store) fencedByState(ctx context.Context, id string, epoch uint64) error {
	if s.state != s.live {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, stateLimit)
		defer cancel()
	}
	highest, err := s.state.HGet(ctx, keyEpochs, id).Uint64()
	switch {
	case err == nil && highest > epoch:
		return fmt.Errorf("%w: %d", stream.ErrFenced, highest)
	case err != nil && !errors.Is(err, redis.Nil) && s.state == s.live:
		return err
	}
	return nil
}

// SaveRun stores what the manifests need of a run. It closes the tail to lower
// epochs, so a successor that calls it before LoadTail reads the exact tail. A
// run of another broadcast empties the list. ErrFenced for a lower epoch.
func (s *Store) SaveRun(ctx context.Context, id string, r stream.Run) error {
	if err := s.fencedByState(ctx, id, r.ID.Epoch); err != nil {
		return fmt.Errorf("saving run %s of %s: %w", r.ID, id, err)
	}
	doc, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding run %s of %s: %w", r.ID, id, err)
	}
	if _, err := s.run(ctx, s.live, "tail_run", tailKeys(id),
		r.ID.Epoch, r.Broadcast, r.ID.String(), doc, int(tailTTL.Seconds())); err != nil {
		return fmt.Errorf("saving run %s of %s: %w", r.ID, id, err)
	}
	return nil
}

// AppendSegment appends to the stream's tail; a segment may be listed once it
// returns nil. Repeating the last call is harmless. A number that leaves a hole
// empties the list, so that what is listed is contiguous; a segment of another
// broadcast empties it too, and the numbers go on. What lies more than window
// before the newest segment's end leaves. Errors: ErrFenced when a higher epoch
// has been committed or has written; ErrConflict when the number is not above
// the last one, or the broadcast has ended.
func (s *Store) AppendSegment(ctx context.Context, id, broadcast string, seg stream.Segment, window time.Duration) error {
	doc, err := json.Marshal(seg)
	if err != nil {
		return fmt.Errorf("encoding segment %d of %s: %w", seg.Number, id, err)
	}
	if err := s.fencedByState(ctx, id, seg.Run.Epoch); err != nil {
		return fmt.Errorf("appending segment %d of %s: %w", seg.Number, id, err)
	}
	bound := s.bound(ctx, id, seg.Number)
	// When live has lost the tail, the writer that knows it goes on within the
	// last step; anything below may have been used for something else.
	lowest := uint64(0)
	if bound > 2*boundStep {
		lowest = bound - 2*boundStep
	}
	if _, err := s.run(ctx, s.live, "tail_append", tailKeys(id),
		seg.Run.Epoch, broadcast, seg.Number, seg.Local, seg.Run.String(), doc,
		int64(seg.Start+seg.Duration), int64(window), int(tailTTL.Seconds()), lowest); err != nil {
		return fmt.Errorf("appending segment %d of %s: %w", seg.Number, id, err)
	}
	return nil
}

// bound makes sure that state's bound is at or above number, and returns it. A
// failure is not the caller's: only losing live as well makes the bound matter.
func (s *Store) bound(ctx context.Context, id string, number uint64) uint64 {
	known := s.bounds.get(id)
	if known >= number {
		return known
	}
	if s.state != s.live {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, stateLimit)
		defer cancel()
	}
	out, err := s.run(ctx, s.state, "hash_raise", []string{keyNumbers}, id, number+boundStep-1)
	if err != nil {
		s.log.Warn("raising the number bound failed", "stream", id, "number", number, "error", err)
		return known
	}
	known, _ = strconv.ParseUint(out[0], 10, 64)
	s.bounds.set(id, known)
	return known
}

// LoadTail returns what has been listed of the stream's last broadcast, and the
// last number; the next must be above it. When live has lost the tail, or holds
// an old one, there are no segments and Last is a number that no segment is
// above. ErrNotFound when nothing was ever listed.
func (s *Store) LoadTail(ctx context.Context, id string) (stream.Tail, error) {
	keys := tailKeys(id)
	var meta, runs *redis.MapStringStringCmd
	var list *redis.StringSliceCmd
	_, err := s.live.TxPipelined(ctx, func(p redis.Pipeliner) error {
		meta, list, runs = p.HGetAll(ctx, keys[0]), p.LRange(ctx, keys[1], 0, -1), p.HGetAll(ctx, keys[2])
		return nil
	})
	if err != nil {
		return stream.Tail{}, fmt.Errorf("reading the tail of %s: %w", id, err)
	}
	t := stream.Tail{Broadcast: meta.Val()["broadcast"], Ended: meta.Val()["ended"] == "1", Runs: map[string]stream.Run{}}
	t.Last, _ = strconv.ParseUint(meta.Val()["last"], 10, 64)
	bound, err := s.state.HGet(ctx, keyNumbers, id).Uint64()
	if err != nil && !errors.Is(err, redis.Nil) {
		s.log.Warn("reading the number bound failed", "stream", id, "error", err)
	}
	if t.Last == 0 && bound == 0 && t.Broadcast == "" {
		return stream.Tail{}, missing(redis.Nil, "tail of stream", id)
	}
	// The bound is raised before the append, so it may be boundStep above the
	// last; further, or with no last at all, live has forgotten.
	if t.Last+boundStep < bound || t.Last == 0 {
		t.Last = bound
		return t, nil
	}
	for _, raw := range list.Val() {
		var seg stream.Segment
		if err := json.Unmarshal([]byte(raw), &seg); err != nil {
			return stream.Tail{}, fmt.Errorf("decoding a segment of %s: %w", id, err)
		}
		t.Segments = append(t.Segments, seg)
	}
	for name, raw := range runs.Val() {
		var r stream.Run
		if err := json.Unmarshal([]byte(raw), &r); err != nil {
			return stream.Tail{}, fmt.Errorf("decoding run %s of %s: %w", name, id, err)
		}
		t.Runs[name] = r
	}
	return t, nil
}

// EndTail marks the tail as ended: its broadcast takes no more segments. Without
// a tail it does nothing. ErrFenced for a lower epoch than the tail's.
func (s *Store) EndTail(ctx context.Context, id string, epoch uint64) error {
	s.bounds.forget(id)
	if _, err := s.run(ctx, s.live, "tail_end", tailKeys(id), epoch, int(endedTailTTL.Seconds())); err != nil {
		return fmt.Errorf("ending the tail of %s at epoch %d: %w", id, epoch, err)
	}
	return nil
}
