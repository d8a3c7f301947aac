package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Drain is an operator's wish that a worker takes nothing new and gives away what
// it has. It lasts until it is taken back, also while the worker is away.
type Drain struct {
	Since time.Time `json:"since"`
}

// PutDrain asks for a worker to be drained. One that was asked for before keeps
// its Since.
func (s *Store) PutDrain(ctx context.Context, worker string, d Drain) error {
	b, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encoding the drain of worker %s: %w", worker, err)
	}
	if err := s.state.HSetNX(ctx, keyDrains, worker, b).Err(); err != nil {
		return fmt.Errorf("writing the drain of worker %s: %w", worker, err)
	}
	return nil
}

// DeleteDrain takes the wish back; had says whether there was one.
func (s *Store) DeleteDrain(ctx context.Context, worker string) (had bool, err error) {
	n, err := s.state.HDel(ctx, keyDrains, worker).Result()
	if err != nil {
		return false, fmt.Errorf("removing the drain of worker %s: %w", worker, err)
	}
	return n > 0, nil
}

// Drains returns the wishes by worker, whether it reports or not.
func (s *Store) Drains(ctx context.Context) (map[string]Drain, error) {
	all, err := s.state.HGetAll(ctx, keyDrains).Result()
	if err != nil {
		return nil, fmt.Errorf("reading the drains: %w", err)
	}
	out := make(map[string]Drain, len(all))
	for worker, raw := range all {
		var d Drain
		if err := json.Unmarshal([]byte(raw), &d); err != nil {
			return nil, fmt.Errorf("decoding the drain of worker %s: %w", worker, err)
		}
		out[worker] = d
	}
	return out, nil
}
