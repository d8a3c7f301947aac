package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// PutBroadcast stores a stream's current or last broadcast, with its session.
func (s *Store) PutBroadcast(ctx context.Context, b stream.Broadcast) error {
	doc, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encoding the broadcast of %s: %w", b.Stream, err)
	}
	if err := s.state.Set(ctx, key("broadcast", b.Stream), doc, 0).Err(); err != nil {
		return fmt.Errorf("writing the broadcast of %s: %w", b.Stream, err)
	}
	return nil
}

// Broadcast returns a stream's current or last broadcast, or ErrNotFound.
func (s *Store) Broadcast(ctx context.Context, id string) (stream.Broadcast, error) {
	return decodeBroadcast(id, s.state.Get(ctx, key("broadcast", id)))
}
