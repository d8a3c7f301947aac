package main

import (
	"fmt"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/store"
)

// servers are two Redis, as a large installation has them: state, which fsyncs
// each write, and live, which keeps nothing on disk.
type servers struct {
	t           *harness.T
	state, live *testkit.Redis
}

func startServers(t *harness.T) (servers, error) {
	s := servers{t, testkit.NewRedis(t), testkit.NewRedis(t)}
	return s, harness.SetRedis(t.Context(), s.live, "appendonly", "no")
}

// open makes a client of both, which is closed when t ends.
func (s servers) open() (*store.Store, error) {
	c, err := store.Open(s.t.Context(), store.Options{StateURL: s.state.URL(0), LiveURL: s.live.URL(0)})
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c, nil
}
