package controller

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// TestBesideLeading: what runs beside the loop runs at one replica, from when that
// leads until it does no longer.
func TestBesideLeading(t *testing.T) {
	var mu sync.Mutex
	running, most := map[string]bool{}, 0
	beside := func(name string) func(*Config) {
		return func(c *Config) {
			c.Beside = []func(context.Context){func(ctx context.Context) {
				mu.Lock()
				running[name] = true
				most = max(most, len(running))
				mu.Unlock()
				<-ctx.Done()
				mu.Lock()
				delete(running, name)
				mu.Unlock()
			}}
		}
	}
	only := func(name string) {
		t.Helper()
		testkit.Eventually(t, 20*time.Second, name+" beside its leading", func() error {
			mu.Lock()
			defer mu.Unlock()
			if !running[name] {
				return errors.New("it does not run")
			}
			return nil
		})
	}
	f := newFleetWith(t, beside("test"))
	only("test")
	second := f.controller("second", beside("second"))
	must(t, f.client().Set(t.Context(), "dionysia:lease:controller", "second", 3*time.Second).Err()) // another took it
	only("second")
	second.Stop(context.Background())
	mu.Lock()
	if running["second"] {
		t.Error("it runs on after the stop")
	}
	mu.Unlock()
	only("test")
}
