package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// Notify tells watchers that something about a stream changed. A notification
// may be lost: whoever listens also polls.
func (s *Store) Notify(ctx context.Context, id string) error {
	if err := s.live.Publish(ctx, keyNotify, id).Err(); err != nil {
		return fmt.Errorf("notifying of stream %s: %w", id, err)
	}
	return nil
}

// Watch returns the ids that Notify is called with, until ctx ends, which closes
// the channel. Whenever the subscription is made, first or after a loss of the
// connection, it sends "": anything may have changed meanwhile. A reader that is
// slow misses ids, and gets a "" for them.
func (s *Store) Watch(ctx context.Context) <-chan string {
	out := make(chan string, 64)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			s.watch(ctx, out)
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	return out
}

// pingEvery is how often a silent subscription is tried; a half-open connection
// is found within twice that.
const pingEvery = 3 * time.Second

// watch serves one subscription until it fails or ctx ends.
func (s *Store) watch(ctx context.Context, out chan<- string) {
	sub := s.live.Subscribe(ctx)
	defer func() { _ = sub.Close() }()
	// Closing is what ends a Receive that waits.
	stop := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer stop()
	if err := sub.Subscribe(ctx, keyNotify); err != nil {
		s.log.Debug("subscribing failed", "error", err)
		return
	}
	missed, pinged := false, false
	offer := func(id string) {
		if missed {
			id = ""
		}
		select {
		case out <- id:
			missed = false
		default:
			missed = true
		}
	}
	for ctx.Err() == nil {
		msg, err := sub.ReceiveTimeout(ctx, pingEvery)
		if err != nil {
			if pinged || !timedOut(err) || sub.Ping(ctx) != nil {
				s.log.Debug("the subscription was lost", "error", err)
				return
			}
			pinged = true
			continue
		}
		pinged = false
		switch m := msg.(type) {
		case *redis.Subscription:
			offer("")
		case *redis.Message:
			offer(m.Payload)
		}
		if missed {
			offer("")
		}
	}
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
