package store

import (
	"context"
	"encoding/json"
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
