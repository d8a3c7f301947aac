package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// Redis is emptied while a stream is live, and long after that an older copy is
// restored, of before its broadcast began: its viewers see a join and nothing else,
// and its publisher is not disconnected.
func TestStateIsRestored(t *testing.T) {
	realTime(t)
	d := kit.StartDev(t, kit.DevOptions{})
	key := newStream(t, d, kit.StreamSpec{ID: "show"})
	password, err := os.ReadFile(filepath.Join(d.DataDir, "redis.password"))
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(&redis.Options{Addr: d.Redis, Password: strings.TrimSpace(string(password))})
	defer c.Close()
	copied := map[string]string{}
	for _, k := range c.Keys(t.Context(), "dionysia:*").Val() {
		// What is in the copy of these has expired when it is restored.
		if strings.Contains(k, ":report:") || strings.Contains(k, ":lease:") || strings.Contains(k, ":ingest:") {
			continue
		}
		if copied[k], err = c.Dump(t.Context(), k).Result(); err != nil {
			t.Fatal(err)
		}
	}

	pub := kit.Publish(t, kit.Picture{}, d.RTMPTarget("show", key))
	w := kit.WatchHLS(t, d.Master("show"), goesLive)
	w.WaitSegments(t, 6, goesLive)
	id := broadcast(t, d, "show")
	if err := c.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	emptied := time.Now()
	for time.Since(emptied) < 20*time.Second { // five times what a leader holds
		w.WaitSegments(t, 2, goesLive)
	}
	if disc := w.Discontinuities(); len(disc) != 0 {
		t.Errorf("discontinuities before %v though nothing has been placed", disc)
	}
	if _, err := c.TxPipelined(t.Context(), func(p redis.Pipeliner) error { // at once, as a copy that is loaded is there
		p.FlushAll(t.Context())
		for k, v := range copied {
			p.RestoreReplace(t.Context(), k, 0, v)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	waitState(t, d, "show", aWhile, "live")
	if now := broadcast(t, d, "show"); now != id {
		t.Errorf("it is another broadcast: %s, not %s", now, id)
	}
	w.WaitSegments(t, 8, goesLive)
	if disc := w.Discontinuities(); len(disc) != 1 {
		t.Errorf("discontinuities before %v; one was due", disc)
	}
	select {
	case <-pub.Done():
		t.Error("the publisher was disconnected")
	default:
	}
	w.ExpectClean(t)
	stopPublisher(t, pub)
	w.WaitEnded(t, goesLive)
}
