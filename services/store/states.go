package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// State is what is stored of a stream. Each part has its own error: ErrNotFound
// when there is none (of a stream that was deleted it is ErrDeleted), or why it
// could not be read.
type State struct {
	Stream       stream.Stream
	StreamErr    error
	Placement    stream.Placement
	PlacementErr error
	Broadcast    stream.Broadcast // only when asked for
	BroadcastErr error
}

// States reads streams with their placements, and the broadcasts of those for
// which broadcast says so, in one round trip; the answer is in the order of ids.
// The parts of one stream may be of slightly different moments. Callers with many
// ids ask for a thousand or so at a time.
//
// generation is the database's after they were read (see Generation): a caller that
// knows another must not believe what is missing here.
func (s *Store) States(ctx context.Context, ids []string, broadcast func(id string) bool) (list []State, generation string, err error) {
	if len(ids) == 0 {
		generation, err = s.Generation(ctx)
		return nil, generation, err
	}
	streams, placements := make([]*redis.SliceCmd, len(ids)), make([]*redis.SliceCmd, len(ids))
	broadcasts := make([]*redis.StringCmd, len(ids))
	var deleted *redis.SliceCmd
	var read func() string
	_, err = s.state.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			streams[i] = p.HMGet(ctx, key("stream", id), "json", "version")
			placements[i] = p.HMGet(ctx, key("placement", id), placementFields...)
			if broadcast(id) {
				broadcasts[i] = p.Get(ctx, key("broadcast", id))
			}
		}
		deleted = p.HMGet(ctx, keyDeleted, ids...)
		read = pipeGeneration(ctx, p)
		return nil
	})
	var answered redis.Error // about one of them, that has it too
	if err != nil && !errors.As(err, &answered) {
		return nil, "", fmt.Errorf("reading %d streams and their placements: %w", len(ids), err)
	}
	if err := deleted.Err(); err != nil {
		return nil, "", fmt.Errorf("reading which of %d streams were deleted: %w", len(ids), err)
	}
	list = make([]State, len(ids))
	for i, id := range ids {
		st := &list[i]
		if v, err := streams[i].Result(); err != nil {
			st.StreamErr = missing(err, "stream", id)
		} else {
			st.Stream, st.StreamErr = decodeStream(id, v)
			st.StreamErr = absence(id, deleted.Val()[i], st.StreamErr)
		}
		if v, err := placements[i].Result(); err != nil {
			st.PlacementErr = missing(err, "placement of stream", id)
		} else {
			st.Placement, st.PlacementErr = decodePlacement(id, v)
		}
		if broadcasts[i] != nil {
			st.Broadcast, st.BroadcastErr = decodeBroadcast(id, broadcasts[i])
		}
	}
	return list, read(), nil
}

func decodeBroadcast(id string, c *redis.StringCmd) (stream.Broadcast, error) {
	var b stream.Broadcast
	raw, err := c.Result()
	if err != nil {
		return b, missing(err, "broadcast of stream", id)
	}
	if err := json.Unmarshal([]byte(raw), &b); err != nil {
		return b, fmt.Errorf("decoding the broadcast of %s: %w", id, err)
	}
	return b, nil
}
