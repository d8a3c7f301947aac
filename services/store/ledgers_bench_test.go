package store_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// BenchmarkLedgers is a fleet of 10,000 workers with a GPU each and 100,000
// streams: how long it takes to read everything, and to follow one commit.
func BenchmarkLedgers(b *testing.B) {
	const workers, streams = 10_000, 100_000
	state := testkit.NewRedis(b)
	s := openURL(b, state.URL(0), "")
	fill(b, raw(b, state), workers, streams)
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if n, err := s.NewLedgers().Refresh(b.Context()); err != nil || n != 2*streams {
				b.Fatal(n, err)
			}
		}
	})
	l := s.NewLedgers()
	refresh(b, l, 2*streams)
	l.Changed()
	b.Run("nothing new", func(b *testing.B) {
		for b.Loop() {
			refresh(b, l, 0)
		}
	})
	into := map[string]placement.Load{}
	i := 0
	b.Run("one commit", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			i++
			w := fmt.Sprintf("w%d", i%workers)
			if _, err := s.Commit(b.Context(), on(fmt.Sprintf("new-%d", i), w, 0, res(gpu0, 1, "cpu", 1), upTo(1<<40, 1<<40)...)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			refresh(b, l, 2)
			for _, w := range l.Changed() {
				l.Load(w, into)
			}
		}
	})
	b.Run("load of every worker", func(b *testing.B) {
		for b.Loop() {
			for i := range workers {
				l.Load(fmt.Sprintf("w%d", i), into)
			}
		}
	})
}

// BenchmarkCommit is commits of three resources by 8 replicas at once, each to one
// of 100 workers that hold ten streams a device; Redis fsyncs each.
func BenchmarkCommit(b *testing.B) {
	const workers = 100
	state := testkit.NewRedis(b)
	replicas := make(chan *store.Store, 8)
	for range cap(replicas) {
		replicas <- openURL(b, state.URL(0), "")
	}
	fill(b, raw(b, state), workers, 10*workers)
	var n atomic.Int64
	b.SetParallelism(8)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := n.Add(1)
			s := <-replicas
			replicas <- s
			id, w := fmt.Sprintf("c%d", i%5000), fmt.Sprintf("w%d", i%workers)
			p, err := s.Placement(b.Context(), id)
			if err != nil && !errors.Is(err, stream.ErrNotFound) {
				b.Error(err)
				return
			}
			_, err = s.Commit(b.Context(), on(id, w, p.Epoch, res(gpu0, 1, "cpu", 1, gpu0+"/memory", 1), upTo(1<<40, 1<<40, 1<<40)...))
			if err != nil && !errors.Is(err, stream.ErrConflict) {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}

// fill writes the ledgers of a fleet as commits would have, long ago.
func fill(b *testing.B, c *redis.Client, workers, streams int) {
	b.Helper()
	p := c.Pipeline()
	for i := range workers {
		w := fmt.Sprintf("w%d", i)
		p.SAdd(b.Context(), "dionysia:ledger-workers", w)
		p.SAdd(b.Context(), "dionysia:ledger-resources:"+w, gpu0, "cpu")
		for j := range streams / workers {
			id := fmt.Sprintf("s%d-%d", i, j)
			p.HSet(b.Context(), "dionysia:ledger:"+w+":"+gpu0, id, "40000000 1000")
			p.HSet(b.Context(), "dionysia:ledger:"+w+":cpu", id, "2000000 1000")
		}
		if i%500 == 499 {
			if _, err := p.Exec(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
}
