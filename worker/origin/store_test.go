package origin

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/store"
)

// On a real Redis: a placement's segments reach the tail, its death of Redis
// delays nothing, and a successor on another worker continues the list.
func TestWithRedis(t *testing.T) {
	const patient = 5 * time.Second // Redis writes to a disk that others use too
	m := makeMedia(t, 8)
	redis := testkit.NewRedis(t)
	open := func() *store.Store {
		s, err := store.Open(t.Context(), store.Options{StateURL: redis.URL(0), LiveURL: redis.URL(1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	start := func(w *world, epoch uint64) testRun {
		r := w.start(placement("demo", epoch, time.Now().Add(-time.Minute)), 1)
		r.inits(all...)
		return r
	}
	s := open()
	w := newWorld(t, m, nil, nil)
	w.origin.cfg.Store, w.origin.cfg.StoreTimeout = s, patient
	r := start(w, 1)
	r.segment(1, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("/1.m4s"))
	tail, err := s.LoadTail(t.Context(), "demo")
	if err != nil || len(tail.Segments) != 1 || tail.Segments[0].Number != 1 || len(tail.Runs["e1r1"].Variants) != 3 {
		t.Fatalf("tail %+v, %v", tail, err)
	}
	redis.Kill()
	r.segment(2, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("/2.m4s"))
	r.segment(3, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("/3.m4s"))
	redis.Restart()
	testkit.Eventually(t, wait, "the tail to catch up", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if tail, err = s.LoadTail(ctx, "demo"); err != nil || len(tail.Segments) != 3 {
			t.Logf("tail %d, %v", len(tail.Segments), err)
			return context.DeadlineExceeded
		}
		return nil
	})

	w2 := newWorld(t, m, nil, nil)
	w2.origin.cfg.Store, w2.origin.cfg.StoreTimeout = open(), patient
	r2 := start(w2, 2)
	r2.segment(1, all...)
	body := w2.eventually("/live/demo/90p/index.m3u8", 200, has("e2r1/90p/1.m4s"))
	if !has("#EXT-X-MEDIA-SEQUENCE:1\n", "e1r1/90p/3.m4s\n#EXT-X-DISCONTINUITY\n")(body) {
		t.Errorf("successor:\n%s", body)
	}
	// The first worker did not hear of it: Redis refuses its next segment.
	r.segment(4, all...)
	select {
	case <-r.Fenced():
	case <-time.After(wait):
		t.Fatal("not fenced")
	}
	if code, body := w.get("/live/demo/180p/index.m3u8"); code == 200 && strings.Contains(body, "/4.m4s") {
		t.Errorf("listed after the fence:\n%s", body)
	}
}
