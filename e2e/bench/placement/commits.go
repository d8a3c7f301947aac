package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
)

const (
	replicas = 8
	// inFlight is how many commits and releases a replica has under way at once.
	inFlight = 4
	// commitsFor is how long they commit.
	commitsFor = 5 * time.Second
)

// commits measures how many placements eight clients commit and release at once,
// on one Redis that plays both roles, with fsync at each write as state has it, and
// once a second for comparison.
func (b *bench) commits() error {
	return b.t.Within(func(t *harness.T) error {
		s, err := startServers(t)
		if err != nil {
			return err
		}
		s.live = s.state
		for _, fsync := range []string{"everysec", "always"} {
			if err := harness.SetRedis(t.Context(), s.state, "appendfsync", fsync); err != nil {
				return err
			}
			rate, took, err := commitAtOnce(s, fsync)
			if err != nil {
				return err
			}
			t.Logf("appendfsync %s: %.0f commits and as many releases a second by %d replicas; a commit takes %.2f ms, p99 %.2f ms", fsync, rate, replicas, harness.Median(took), harness.Quantile(took, 0.99))
			if fsync == "always" {
				b.figures.Add("commits_per_second_8_replicas", rate, "1/s", "-")
			}
		}
		return nil
	})
}

// commitAtOnce returns the commits per second and how long each took, in ms.
func commitAtOnce(s servers, name string) (float64, []float64, error) {
	fleet := &installation{servers: s, reports: machines(1000)}
	type result struct {
		took []float64
		err  error
	}
	results := make([]result, replicas*inFlight)
	ctx, cancel := context.WithTimeout(s.t.Context(), commitsFor)
	defer cancel()
	var wg sync.WaitGroup
	for r := range replicas {
		client, err := s.open()
		if err != nil {
			return 0, nil, err
		}
		for i := range inFlight {
			n := r*inFlight + i
			in := &installation{servers: s, store: client, reports: fleet.reports}
			wg.Go(func() { results[n].took, results[n].err = in.commitAndRelease(ctx, name, n) })
		}
	}
	wg.Wait()
	var took []float64
	for _, r := range results {
		if r.err != nil {
			return 0, nil, r.err
		}
		took = append(took, r.took...)
	}
	return float64(len(took)) / commitsFor.Seconds(), took, fleet.empty(s)
}

// commitAndRelease commits streams of its own and releases each when two more have
// been committed, until ctx ends; then what is left.
func (in *installation) commitAndRelease(ctx context.Context, name string, n int) ([]float64, error) {
	const own = 32
	var took []float64
	var held []*seat
	for i := range own {
		w := (n*own + i) % len(in.reports)
		st := in.seat(n*own+i, w, i%len(in.reports[w].Devices))
		st.proposal.Placement.Stream = fmt.Sprintf("%s-%d-%d", name, n, i)
		in.seats = append(in.seats, st)
	}
	release := func(keep int) error {
		for ; len(held) > keep; held = held[1:] {
			// The last ones are released although the time is over.
			if err := in.store.Release(in.t.Context(), held[0].proposal.Placement.Stream, held[0].epoch); err != nil {
				return err
			}
		}
		return nil
	}
	for i := 0; ctx.Err() == nil; i++ {
		st := in.seats[i%own]
		begin := time.Now()
		if err := in.commit(in.t.Context(), st); err != nil {
			return nil, err
		}
		took = append(took, ms(time.Since(begin)))
		held = append(held, st)
		if err := release(2); err != nil {
			return nil, err
		}
	}
	return took, release(0)
}

// empty checks that all that was committed has been returned.
func (in *installation) empty(s servers) error {
	c, err := s.open()
	if err != nil {
		return err
	}
	for _, r := range in.reports {
		ledger, err := c.Ledger(s.t.Context(), r.Worker)
		if err != nil {
			return err
		}
		if len(ledger) != 0 {
			return fmt.Errorf("worker %s still holds %v", r.Worker, ledger)
		}
	}
	return nil
}
