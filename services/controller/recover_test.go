package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

var errNotYet = errors.New("not yet")

func contains(s, part string) bool { return strings.Contains(s, part) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// runs makes a worker report what it runs.
func (f *fleet) runs(worker string, epochs map[string]uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := *f.workers[worker]
	w.Runs = epochs
	f.workers[worker] = &w
}

func (f *fleet) client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: f.redis.Addr, Password: f.redis.Password})
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// A run whose placement Redis does not know is placed again above its epoch,
// where it is; without a publisher it is left to its worker.
func TestAdoptsRuns(t *testing.T) {
	f := newFleet(t)
	f.worker("w0", "boot1", plenty)
	f.worker("w1", "boot1", plenty)
	f.runs("w1", map[string]uint64{"show": 7, "silent": 3})
	f.stream("show", 15)
	f.stream("silent", 15)
	f.send("show")
	p := f.placed("show", "the adoption", isPlaced)
	if p.Epoch != 8 || p.Worker != "w1" {
		t.Fatalf("adopted as %+v", p)
	}
	f.runs("w1", map[string]uint64{"show": 8, "silent": 3})
	f.notPlaced("silent")
	if p := f.placed("show", "that it stays", isPlaced); p.Epoch != 8 {
		t.Fatalf("placed again as %+v", p)
	}
}

// State is set back to an older copy, and then lost altogether: no epoch is given
// twice, and the streams are placed again.
func TestStateGoesBack(t *testing.T) {
	f := newFleet(t)
	ctx, c := t.Context(), f.client()
	f.worker("w1", "boot1", plenty)
	f.stream("show", 15)
	f.send("show")
	first := f.placed("show", "the placement", isPlaced)
	f.runs("w1", map[string]uint64{"show": 1})
	copied := map[string]string{}
	for _, k := range c.Keys(ctx, "dionysia:*").Val() {
		if v, err := c.Dump(ctx, k).Result(); err == nil {
			copied[k] = v
		}
	}
	for i := range 3 { // the worker starts again and again
		f.worker("w1", fmt.Sprintf("boot%d", i+2), plenty)
		f.placed("show", "the next epoch", func(p stream.Placement) bool { return p.Epoch == uint64(i+2) })
	}
	f.runs("w1", map[string]uint64{"show": 4})

	_, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error { // at once, as a copy that is loaded is there
		p.FlushAll(ctx)
		for k, v := range copied {
			if !contains(k, ":report:") && !contains(k, ":lease:") {
				p.RestoreReplace(ctx, k, 0, v)
			}
		}
		return nil
	})
	must(t, err)
	f.redis.Kill()
	f.redis.Restart()
	p := f.placed("show", "a placement above what ran", func(p stream.Placement) bool { return p.Epoch > 1 && isPlaced(p) })
	if p.Epoch != 5 || p.Boot != "boot4" || p.Broadcast != first.Broadcast {
		t.Fatalf("after the older copy: %+v", p)
	}
	f.runs("w1", map[string]uint64{"show": 5})

	before := f.broadcast("show", "the broadcast", func(stream.Broadcast) bool { return true })
	must(t, c.FlushAll(ctx).Err())
	f.stream("show", 15) // the operator's part
	p = f.placed("show", "a placement after all was lost", isPlaced)
	if p.Epoch != 6 {
		t.Fatalf("after all was lost: %+v", p)
	}
	if b := f.broadcast("show", "the broadcast again", func(b stream.Broadcast) bool { return b.ID != "" }); b.ID != before.ID || p.Broadcast != b.ID {
		t.Fatalf("broadcast %s goes on as %s, placed as %s", before.ID, b.ID, p.Broadcast)
	}
}

// What leaked in a ledger is returned.
func TestRepairsLeaks(t *testing.T) {
	f := newFleetWith(t, func(c *Config) { c.RepairEvery = 200 * time.Millisecond })
	ctx, c := t.Context(), f.client()
	f.worker("w1", "boot1", f.price("240p")*3/2)
	f.stream("show", 15)
	f.stream("held", 15)
	f.send("held")
	p := f.placed("held", "a placement", isPlaced)
	must(t, c.HSet(ctx, "dionysia:ledger:w1:cpu", "ghost", fmt.Sprintf("%d %d", p.Price, time.Now().UnixMilli())).Err())
	must(t, c.HDel(ctx, "dionysia:ledger:w1:cpu", "held").Err())
	testkit.Eventually(t, 10*time.Second, "the repair", func() error {
		l, err := f.store.Ledger(ctx, "w1")
		if err != nil {
			return err
		}
		if _, ghost := l["cpu"]["ghost"]; ghost || l["cpu"]["held"].Amount != p.Price {
			return fmt.Errorf("the ledger is %+v", l)
		}
		return nil
	})
}

// The lease is torn from one controller to another while streams come and the
// workers restart: no ledger is overbooked and each stream is placed once.
func TestLeadersRace(t *testing.T) {
	f := newFleet(t)
	f.controller("second", nil)
	ctx, c := t.Context(), f.client()
	px := f.price("240p")
	const n = 12
	f.worker("w1", "boot1", n/2*px)
	f.worker("w2", "boot1", n/2*px)
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("s%d", i))
		f.stream(ids[i], 15)
	}
	for i, id := range ids {
		f.send(id)
		// Both lead for a moment: the one that has lost it is in its turn.
		must(t, c.Set(ctx, "dionysia:lease:controller", []string{"test", "second"}[i%2], 3*time.Second).Err())
		f.placed(id, "the placement of "+id, isPlaced)
	}
	f.worker("w2", "boot2", n/2*px)
	must(t, c.Del(ctx, "dionysia:lease:controller").Err())
	for _, id := range ids {
		f.placed(id, "a placement that works", func(p stream.Placement) bool { return isPlaced(p) && (p.Worker == "w1" || p.Boot == "boot2") })
	}
	placed := map[string]string{}
	for _, w := range []string{"w1", "w2"} {
		l, err := f.store.Ledger(ctx, w)
		must(t, err)
		var sum int64
		for id, h := range l["cpu"] {
			sum += h.Amount
			if placed[id] != "" {
				t.Fatalf("%s holds room at %s and %s", id, placed[id], w)
			}
			placed[id] = w
		}
		if sum > n/2*px {
			t.Fatalf("%s: %d px/s are reserved of %d", w, sum, n/2*px)
		}
	}
	if len(placed) != n {
		t.Fatalf("%d streams hold room, not %d", len(placed), n)
	}
}
