package store_test

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// With Redis away, refused or frozen, calls fail in about the time-out; with it
// back, the same store works, and what was acknowledged is there.
func TestRedisAway(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	must(t, s.CreateStream(ctx, demo("demo"), "hash1"))
	quick := func(what string) {
		t.Helper()
		start := time.Now()
		if err := s.Ping(ctx); err == nil {
			t.Fatalf("%s: no error", what)
		}
		_, err := s.GetStream(ctx, "demo")
		if err == nil || errors.Is(err, stream.ErrNotFound) {
			t.Fatalf("%s: got %v", what, err)
		}
		if d := time.Since(start); d > 10*time.Second { // two calls of 1 s, on a busy machine
			t.Fatalf("%s: two calls took %v", what, d)
		}
	}
	back := func() {
		t.Helper()
		testkit.Eventually(t, 30*time.Second, "the store to work again", func() error {
			h, err := s.StreamKeyHash(ctx, "demo")
			if err == nil && h != "hash1" {
				t.Fatalf("the key hash is %q", h)
			}
			return err
		})
	}
	must(t, syscall.Kill(state.PID(), syscall.SIGSTOP))
	quick("frozen")
	must(t, syscall.Kill(state.PID(), syscall.SIGCONT))
	back()
	state.Kill()
	quick("killed")
	state.Restart()
	back()
	got, err := s.GetStream(ctx, "demo")
	must(t, err)
	if got.Version != 1 {
		t.Fatalf("got %+v", got)
	}
}

// What was acknowledged survives kill -9 of the server in the midst of writing.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	s, state, _ := open(t)
	ctx := t.Context()
	var mu sync.Mutex
	acked := map[string]string{}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("s%d-%d", g, i)
				if s.CreateStream(ctx, demo(id), "first") != nil {
					return
				}
				hash := "first"
				if s.SetStreamKey(ctx, id, "second") == nil {
					hash = "second"
				}
				mu.Lock()
				acked[id] = hash
				mu.Unlock()
			}
		})
	}
	testkit.Eventually(t, 60*time.Second, "some streams", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(acked) < 50 {
			return fmt.Errorf("%d streams", len(acked))
		}
		return nil
	})
	state.Kill()
	wg.Wait()
	state.Restart()
	testkit.Eventually(t, 30*time.Second, "the store to work again", func() error { return s.Ping(ctx) })
	for id, hash := range acked {
		got, err := s.StreamKeyHash(ctx, id)
		// An update that was not acknowledged may have happened.
		if err != nil || (got != hash && got != "second") {
			t.Errorf("%s: key hash %q (%v), acknowledged %q", id, got, err, hash)
		}
	}
}

// A store that starts before Redis works once Redis does.
func TestOpenBeforeRedis(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	s := openURL(t, "redis://:x@"+addr+"/0", "")
	if err := s.Ping(t.Context()); err == nil {
		t.Fatal("no error")
	}
}

func TestGeneration(t *testing.T) {
	s, state, _ := open(t)
	g1, err := s.Generation(t.Context())
	must(t, err)
	if again, err := s.Generation(t.Context()); err != nil || again != g1 {
		t.Fatalf("got %q (%v), then %q", g1, err, again)
	}
	state.Kill()
	state.Restart()
	var g2 string
	testkit.Eventually(t, 30*time.Second, "the generation", func() error { g2, err = s.Generation(t.Context()); return err })
	if g1 == g2 {
		t.Fatal("a restart does not show")
	}
	before := time.Now()
	now, err := s.Time(t.Context())
	must(t, err)
	if d := now.Sub(before); d < -time.Second || d > 10*time.Second {
		t.Fatalf("redis' time is %v off", d)
	}
}
