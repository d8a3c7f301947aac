package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// eventID is the form of a Redis stream entry's id.
var eventID = regexp.MustCompile(`^[0-9]{1,20}-[0-9]{1,20}$`)

// AddEvent appends to the stream's history, which keeps about the last 1000
// entries in live, for 30 days after the last. The event's ID is given here.
func (s *Store) AddEvent(ctx context.Context, e stream.Event) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding an event of %s: %w", e.Stream, err)
	}
	k := key("events", e.Stream)
	_, err = s.live.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.XAdd(ctx, &redis.XAddArgs{Stream: k, MaxLen: maxEvents, Approx: true, Values: []any{"json", b}})
		p.Expire(ctx, k, eventsTTL)
		return nil
	})
	if err != nil {
		return fmt.Errorf("adding an event to %s: %w", e.Stream, err)
	}
	return nil
}

// Events returns up to limit (1 to 1000) events in their order: those that
// follow the id after, or the newest when after is "". An after that is no
// event's id is ErrInvalid.
func (s *Store) Events(ctx context.Context, id, after string, limit int) ([]stream.Event, error) {
	limit = min(max(limit, 1), maxEvents)
	k := key("events", id)
	var msgs []redis.XMessage
	var err error
	switch {
	case after == "":
		msgs, err = s.live.XRevRangeN(ctx, k, "+", "-", int64(limit)).Result()
		slices.Reverse(msgs)
	case !eventID.MatchString(after):
		return nil, fmt.Errorf("events of %s: after is no event's id: %w", id, stream.ErrInvalid)
	default:
		msgs, err = s.live.XRangeN(ctx, k, "("+after, "+", int64(limit)).Result()
	}
	if err != nil {
		return nil, fmt.Errorf("reading the events of %s: %w", id, err)
	}
	return decodeEvents(id, msgs)
}

// newestBatch is how many streams' events are read at once: of each it may be
// maxEvents.
const newestBatch = 50

// NewestEvents returns up to limit (1 to 1000) of the newest events of each of these
// streams, in their order. The error is about those that are missing in the answer.
func (s *Store) NewestEvents(ctx context.Context, ids []string, limit int) (map[string][]stream.Event, error) {
	limit = min(max(limit, 1), maxEvents)
	histories := make(map[string][]stream.Event, len(ids))
	var errs []error
	for part := range slices.Chunk(ids, newestBatch) {
		cmds := make([]*redis.XMessageSliceCmd, len(part))
		_, err := s.live.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, id := range part {
				cmds[i] = p.XRevRangeN(ctx, key("events", id), "+", "-", int64(limit))
			}
			return nil
		})
		var answered redis.Error // about one of them, that has it too
		if err != nil && !errors.As(err, &answered) {
			return histories, errors.Join(append(errs, fmt.Errorf("reading the events of %d streams: %w", len(part), err))...)
		}
		for i, c := range cmds {
			msgs, err := c.Result()
			if err != nil {
				errs = append(errs, fmt.Errorf("reading the events of %s: %w", part[i], err))
				continue
			}
			slices.Reverse(msgs)
			list, err := decodeEvents(part[i], msgs)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			histories[part[i]] = list
		}
	}
	return histories, errors.Join(errs...)
}

func decodeEvents(id string, msgs []redis.XMessage) ([]stream.Event, error) {
	list := make([]stream.Event, 0, len(msgs))
	for _, m := range msgs {
		var e stream.Event
		raw, _ := m.Values["json"].(string)
		if err := json.Unmarshal([]byte(raw), &e); err != nil {
			return nil, fmt.Errorf("decoding event %s of %s: %w", m.ID, id, err)
		}
		e.ID = m.ID
		list = append(list, e)
	}
	return list, nil
}
