package store_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// A stream that was deleted is told from one that was never there, and from one that
// went with its database, by whatever reads it.
func TestDeletedOrLost(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	c := redis.NewClient(&redis.Options{Addr: state.Addr, Password: state.Password})
	defer c.Close()
	expect := func(what string, deleted bool) {
		t.Helper()
		_, got := s.GetStream(ctx, "show")
		_, route := s.Route(ctx, "show")
		list, _, err := s.States(ctx, []string{"other", "show"}, func(string) bool { return false })
		must(t, err)
		for reader, err := range map[string]error{"GetStream": got, "Route": route, "States": list[1].StreamErr} {
			if !errors.Is(err, stream.ErrNotFound) || errors.Is(err, stream.ErrDeleted) != deleted {
				t.Errorf("%s, %s: %v", what, reader, err)
			}
		}
	}
	must(t, s.CreateStream(ctx, demo("other"), "hash"))
	expect("never there", false)
	must(t, s.CreateStream(ctx, demo("show"), "hash"))
	must(t, s.DeleteStream(ctx, "show"))
	expect("deleted", true)
	must(t, s.CreateStream(ctx, demo("show"), "hash"))
	if _, err := s.GetStream(ctx, "show"); err != nil {
		t.Fatalf("created again: %v", err)
	}
	must(t, c.Del(ctx, "dionysia:stream:show").Err())
	expect("created again and lost", false)
	must(t, c.FlushAll(ctx).Err())
	expect("lost with all else", false)
}

// What tells that a stream was deleted says when.
func TestDeletedWhen(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	must(t, s.CreateStream(ctx, demo("show"), "hash"))
	must(t, s.DeleteStream(ctx, "show"))
	_, got := s.GetStream(ctx, "show")
	_, route := s.Route(ctx, "show")
	list, _, err := s.States(ctx, []string{"show"}, func(string) bool { return false })
	must(t, err)
	for reader, err := range map[string]error{"GetStream": got, "Route": route, "States": list[0].StreamErr} {
		now := time.Now()
		if !stream.Deleted(err, time.Time{}) || !stream.Deleted(err, now) || stream.Deleted(err, now.Add(10*time.Minute)) {
			t.Errorf("%s: %v", reader, err)
		}
	}
}

// Deletions of long ago are forgotten as others are remembered.
func TestDeletionsAreForgotten(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	c := redis.NewClient(&redis.Options{Addr: state.Addr, Password: state.Password})
	defer c.Close()
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	const week = 7 * 24 * time.Hour
	must(t, c.HSet(ctx, "dionysia:deleted-streams", "young", ago(week-time.Hour)).Err())
	for i := range 50 {
		must(t, c.HSet(ctx, "dionysia:deleted-streams", fmt.Sprint("old", i), ago(week+time.Minute)).Err())
	}
	for range 5 {
		must(t, s.CreateStream(ctx, demo("show"), "hash"))
		must(t, s.DeleteStream(ctx, "show"))
	}
	left, err := c.HKeys(ctx, "dionysia:deleted-streams").Result()
	must(t, err)
	if slices.Sort(left); !slices.Equal(left, []string{"show", "young"}) {
		t.Errorf("remembered: %v", left)
	}
}

// A route says which epochs state knows.
func TestRouteTellsEpochs(t *testing.T) {
	s, _, _ := open(t)
	ctx := t.Context()
	must(t, s.CreateStream(ctx, demo("show"), "hash"))
	r, err := s.Route(ctx, "show")
	must(t, err)
	if r.Given != 0 {
		t.Fatalf("before any: %d", r.Given)
	}
	must(t, s.RaiseEpoch(ctx, "show", 7))
	if r, err = s.Route(ctx, "show"); err != nil || r.Given != 7 {
		t.Fatalf("%+v, %v", r, err)
	}
}
