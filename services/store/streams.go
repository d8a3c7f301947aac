package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// builtin is "1" for the name of a built-in profile: those are not in Redis.
func builtin(name string) string {
	if _, ok := stream.Builtin(name); ok {
		return "1"
	}
	return "0"
}

// CreateStream stores a new stream and the hash of its key. Version becomes 1;
// times that are zero become now. Errors: ErrExists; ErrInvalid for a field, or
// for a profile that doesn't exist.
func (s *Store) CreateStream(ctx context.Context, st stream.Stream, keyHash string) error {
	if err := st.Validate(); err != nil {
		return err
	}
	now := time.Now().UTC()
	st.Version = 1
	if st.CreatedAt.IsZero() {
		st.CreatedAt = now
	}
	if st.UpdatedAt.IsZero() {
		st.UpdatedAt = st.CreatedAt
	}
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("encoding stream %s: %w", st.ID, err)
	}
	_, err = s.run(ctx, s.state, "stream_create",
		[]string{key("stream", st.ID), keyStreams, key("profile", st.Profile), preProfileStream + st.Profile, keyDeleted},
		st.ID, b, keyHash, st.Profile, builtin(st.Profile))
	if err != nil {
		return fmt.Errorf("creating stream %s: %w", st.ID, err)
	}
	return nil
}

// GetStream returns a stream, or ErrNotFound, which is ErrDeleted when it was
// deleted.
func (s *Store) GetStream(ctx context.Context, id string) (stream.Stream, error) {
	v, err := s.state.HMGet(ctx, key("stream", id), "json", "version").Result()
	if err != nil {
		return stream.Stream{}, missing(err, "stream", id)
	}
	st, err := decodeStream(id, v)
	if errors.Is(err, stream.ErrNotFound) {
		mark, markErr := s.state.HMGet(ctx, keyDeleted, id).Result()
		if markErr != nil {
			return st, missing(markErr, "stream", id)
		}
		err = absence(id, mark[0], err)
	}
	return st, err
}

// absence makes of the ErrNotFound of a stream an ErrDeleted when there is a mark of
// its deletion: the second, as text.
func absence(id string, mark any, err error) error {
	text, marked := mark.(string)
	if !marked || !errors.Is(err, stream.ErrNotFound) {
		return err
	}
	second, badErr := strconv.ParseInt(text, 10, 64)
	if badErr != nil {
		return fmt.Errorf("stream %q: %w", id, stream.ErrDeleted)
	}
	return &stream.DeletedError{Stream: id, At: time.Unix(second, 0)}
}

func decodeStream(id string, v []any) (stream.Stream, error) {
	var st stream.Stream
	raw, ok := v[0].(string)
	if !ok {
		return st, missing(redis.Nil, "stream", id)
	}
	if err := json.Unmarshal([]byte(raw), &st); err != nil {
		return st, fmt.Errorf("decoding stream %s: %w", id, err)
	}
	version, _ := v[1].(string)
	st.Version, _ = strconv.ParseInt(version, 10, 64)
	return st, nil
}

// ListStreams returns up to limit (1 to 1000) streams in order of their ids,
// beginning after the id after ("" for the first), and the after of the next
// page, "" when there is none.
func (s *Store) ListStreams(ctx context.Context, after string, limit int) ([]stream.Stream, string, error) {
	limit = min(max(limit, 1), 1000)
	from := "-"
	if after != "" {
		from = "(" + after
	}
	ids, err := s.state.ZRangeArgs(ctx, redis.ZRangeArgs{Key: keyStreams, Start: from, Stop: "+", ByLex: true, Count: int64(limit) + 1}).Result()
	if err != nil {
		return nil, "", fmt.Errorf("listing streams: %w", err)
	}
	next := ""
	if len(ids) > limit {
		ids = ids[:limit]
		next = ids[limit-1]
	}
	list := make([]stream.Stream, 0, len(ids))
	if len(ids) == 0 {
		return list, "", nil
	}
	cmds := make([]*redis.SliceCmd, len(ids))
	if _, err := s.state.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			cmds[i] = p.HMGet(ctx, key("stream", id), "json", "version")
		}
		return nil
	}); err != nil {
		return nil, "", fmt.Errorf("reading streams: %w", err)
	}
	for i, c := range cmds {
		if c.Val()[0] == nil {
			continue // deleted between the two
		}
		st, err := decodeStream(ids[i], c.Val())
		if err != nil {
			return nil, "", err
		}
		list = append(list, st)
	}
	return list, next, nil
}

// UpdateStream replaces a stream if its version is still st.Version, and returns
// it with the next one. Errors: ErrNotFound, ErrConflict; ErrInvalid as in
// CreateStream. The creation time is the caller's to keep.
func (s *Store) UpdateStream(ctx context.Context, st stream.Stream) (stream.Stream, error) {
	if err := st.Validate(); err != nil {
		return st, err
	}
	read := st.Version
	st.Version, st.UpdatedAt = read+1, time.Now().UTC()
	b, err := json.Marshal(st)
	if err != nil {
		return st, fmt.Errorf("encoding stream %s: %w", st.ID, err)
	}
	_, err = s.run(ctx, s.state, "stream_update",
		[]string{key("stream", st.ID), key("profile", st.Profile), preProfileStream + st.Profile},
		st.ID, read, b, st.Profile, builtin(st.Profile), preProfileStream)
	if err != nil {
		return st, fmt.Errorf("updating stream %s: %w", st.ID, err)
	}
	return st, nil
}

// DeleteStream deletes a stream, or returns ErrNotFound. Ending its placement is
// the controller's work.
func (s *Store) DeleteStream(ctx context.Context, id string) error {
	return s.deleteStream(ctx, id, "0")
}

// DeleteLost is DeleteStream for a stream that may be missing because state has lost
// it: it counts as deleted afterwards, so that what goes on of it ends.
func (s *Store) DeleteLost(ctx context.Context, id string) error {
	return s.deleteStream(ctx, id, "1")
}

func (s *Store) deleteStream(ctx context.Context, id, missingToo string) error {
	keys := []string{key("stream", id), keyStreams, keyDeleted}
	if _, err := s.run(ctx, s.state, "stream_delete", keys, id, preProfileStream, missingToo); err != nil {
		return fmt.Errorf("deleting stream %s: %w", id, err)
	}
	// What is left in live expires by itself.
	if err := s.live.Del(ctx, key("claim", id), key("events", id)).Err(); err != nil {
		s.log.Debug("deleting the claim and events", "stream", id, "error", err)
	}
	return nil
}

// SetStreamKey replaces the hash of a stream's key, or returns ErrNotFound.
func (s *Store) SetStreamKey(ctx context.Context, id, keyHash string) error {
	if _, err := s.run(ctx, s.state, "stream_key", []string{key("stream", id)}, keyHash); err != nil {
		return fmt.Errorf("setting the key of stream %s: %w", id, err)
	}
	return nil
}

// StreamKeyHash returns the hash of a stream's key, or ErrNotFound.
func (s *Store) StreamKeyHash(ctx context.Context, id string) (string, error) {
	h, err := s.state.HGet(ctx, key("stream", id), "key").Result()
	if err != nil {
		return "", missing(err, "stream", id)
	}
	return h, nil
}
