package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// Route returns what a router needs of a stream, or ErrNotFound when there is no
// such stream, which is ErrDeleted when it was deleted.
func (s *Store) Route(ctx context.Context, id string) (stream.Route, error) {
	var conf, placed *redis.SliceCmd
	var origins *redis.MapStringStringCmd
	var clock *redis.TimeCmd
	var given *redis.StringCmd
	var deleted *redis.SliceCmd
	_, err := s.state.Pipelined(ctx, func(p redis.Pipeliner) error {
		conf = p.HMGet(ctx, key("stream", id), "json", "version")
		placed = p.HMGet(ctx, key("placement", id), placementFields...)
		origins = p.HGetAll(ctx, key("origins", id))
		clock = p.Time(ctx)
		deleted = p.HMGet(ctx, keyDeleted, id)
		given = p.HGet(ctx, keyEpochs, id) // the last: it may be nil, and hides no error
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return stream.Route{}, fmt.Errorf("reading the route of stream %s: %w", id, err)
	}
	st, err := decodeStream(id, conf.Val())
	if err != nil {
		if len(deleted.Val()) == 1 {
			err = absence(id, deleted.Val()[0], err)
		}
		return stream.Route{}, err
	}
	r := stream.Route{Stream: id, Disabled: st.Disabled, HoldBack: st.HoldBack, Window: st.Window, Origins: map[uint64]string{}}
	r.Given, _ = strconv.ParseUint(given.Val(), 10, 64)
	p, err := decodePlacement(id, placed.Val())
	if errors.Is(err, stream.ErrNotFound) {
		return r, nil
	}
	if err != nil {
		return stream.Route{}, err
	}
	linger := max(st.Window, p.Window).Duration() + originLinger
	r.HoldBack, r.Window = p.HoldBack, p.Window
	if p.State == stream.PlacementEnded {
		ended, _ := placed.Val()[len(placementFields)-1].(string)
		r.Ended = clock.Val().Sub(micros(ended)) < linger
	} else {
		r.Live = true
	}
	if r.Live || r.Ended {
		r.Epoch, r.Origin = p.Epoch, p.Worker
	}
	for e, v := range origins.Val() {
		epoch, err := strconv.ParseUint(e, 10, 64)
		worker, until, _ := strings.Cut(v, " ")
		ms, err2 := strconv.ParseInt(until, 10, 64)
		if err != nil || err2 != nil || epoch == p.Epoch || ms == 0 || clock.Val().Sub(time.UnixMilli(ms)) >= linger {
			continue
		}
		r.Origins[epoch] = worker
	}
	return r, nil
}
