package origin

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestFencing(t *testing.T) {
	for name, fence := range map[string]func(w *world, r testRun){
		"by a router": func(w *world, r testRun) {
			if code, _ := w.get("/live/demo/master.m3u8", HeaderEpoch, "4"); code != http.StatusGone {
				w.t.Errorf("the router that told gets %d", code)
			}
		},
		"by the worker": func(w *world, r testRun) { w.origin.Fence("demo", 4) },
		"by the store": func(w *world, r testRun) {
			w.store.set(func() { w.store.fenced["demo"] = 4 })
			r.segment(2, all...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, makeMedia(t, 6), newFakeStore(), nil)
			r := w.start(placement("demo", 3, time.Now()), 1)
			r.inits(all...)
			r.segment(1, all...)
			w.eventually("/live/demo/master.m3u8", 200, nil)
			if code, _ := w.get("/live/demo/master.m3u8", HeaderEpoch, "3"); code != 200 {
				t.Fatalf("own epoch answers %d", code)
			}
			fence(w, r)
			select {
			case <-r.Fenced():
			case <-time.After(wait):
				t.Fatal("the supervisor was not told")
			}
			<-r.Done()
			w.eventually("/live/demo/master.m3u8", http.StatusGone, nil)
			for path, want := range map[string]int{"180p/index.m3u8": 410, "manifest.mpd": 410,
				"seg/e3r1/180p/1.m4s": 200, "seg/e3r1/180p/init.mp4": 200, "seg/e3r1/180p/2.m4s": 404} {
				if code, _ := w.get("/live/demo/" + path); code != want {
					t.Errorf("%s: %d, want %d", path, code, want)
				}
			}
			// The stream comes back to this worker.
			r = w.start(placement("demo", 5, time.Now()), 1)
			r.inits(all...)
			w.store.set(func() { w.store.fenced["demo"] = 5 })
			r.segment(1, all...)
			w.eventually("/live/demo/180p/index.m3u8", 200, has("e5r1"))
		})
	}
}

// TestMovedUntil shows how long a worker that stops has something to serve.
func TestMovedUntil(t *testing.T) {
	c := &clock{at: time.Now()}
	w := newWorld(t, makeMedia(t, 4), newFakeStore(), c)
	p := placement("demo", 3, c.Now())
	r := w.start(p, 1)
	r.inits(all...)
	r.segment(1, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("/1.m4s"))
	is := func(want time.Time) {
		t.Helper()
		testkit.Eventually(t, wait, "MovedUntil", func() error {
			if got := w.origin.MovedUntil(); !got.Equal(want) {
				return fmt.Errorf("%v, want %v", got, want)
			}
			return nil
		})
	}
	is(time.Time{}) // it is still here
	w.origin.Fence("demo", 4)
	<-r.Done()
	is(c.Now().Add(p.Window.Duration()))
	c.Add(p.Window.Duration() + time.Second)
	is(time.Time{})
	// What was here is of no interest once the stream is back.
	r = w.start(placement("demo", 5, c.Now()), 1)
	r.inits(all...)
	r.segment(1, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("e5r1"))
	is(time.Time{})
}

func TestSuccessor(t *testing.T) {
	m := makeMedia(t, 4)
	start := time.Now()
	first := func(t *testing.T, store *fakeStore) *world {
		w := newWorld(t, m, store, nil)
		r := w.start(placement("demo", 1, start), 1)
		r.inits(all...)
		r.segment(1, all...)
		r.segment(2, all...)
		w.eventually("/live/demo/180p/index.m3u8", 200, has("/2.m4s"))
		return w
	}
	second := func(t *testing.T, store *fakeStore, p stream.Placement) string {
		w := newWorld(t, m, store, nil)
		store.set(func() { store.fenced["demo"] = p.Epoch })
		r := w.start(p, 1)
		r.inits(all...)
		r.segment(1, all...)
		return w.eventually("/live/demo/180p/index.m3u8", 200, has(fmt.Sprintf("e%dr1/180p/1.m4s", p.Epoch)))
	}
	t.Run("continues the tail", func(t *testing.T) {
		store := newFakeStore()
		first(t, store)
		body := second(t, store, placement("demo", 2, start))
		if !has("#EXT-X-MEDIA-SEQUENCE:1\n", "e1r1/180p/2.m4s", "#EXT-X-DISCONTINUITY\n")(body) {
			t.Errorf("successor:\n%s", body)
		}
	})
	t.Run("the tail is lost", func(t *testing.T) {
		store := newFakeStore()
		first(t, store)
		store.set(func() { store.tails = map[string]*stream.Tail{} })
		body := second(t, store, placement("demo", 2, start))
		if has("e1r1")(body) || has("#EXT-X-MEDIA-SEQUENCE:3\n")(body) || !has("#EXT-X-DISCONTINUITY\n")(body) {
			t.Errorf("successor:\n%s", body)
		}
	})
	t.Run("a new broadcast", func(t *testing.T) {
		store := newFakeStore()
		first(t, store)
		p := placement("demo", 2, start)
		p.Broadcast = "b2"
		body := second(t, store, p)
		if !has("#EXT-X-MEDIA-SEQUENCE:3\n")(body) || has("e1r1")(body) || has("#EXT-X-DISCONTINUITY\n")(body) {
			t.Errorf("new broadcast:\n%s", body)
		}
	})
}

func TestNewBroadcastOnTheSameWorker(t *testing.T) {
	store := newFakeStore()
	w := newWorld(t, makeMedia(t, 4), store, nil)
	r := w.start(placement("demo", 1, time.Now()), 1)
	r.inits(all...)
	r.segment(1, all...)
	w.eventually("/live/demo/master.m3u8", 200, nil)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if err := w.origin.End(ctx, "demo", 1); err != nil {
		t.Fatal(err)
	}
	p := placement("demo", 2, time.Now())
	p.Broadcast = "b2"
	r = w.start(p, 1)
	r.inits(all...)
	r.segment(1, all...)
	body := w.eventually("/live/demo/180p/index.m3u8", 200, has("e2r1"))
	if !has("#EXT-X-MEDIA-SEQUENCE:2\n")(body) || has("e1r1")(body) || has("ENDLIST")(body) {
		t.Errorf("new broadcast:\n%s", body)
	}
	if code, _ := w.get("/live/demo/seg/e1r1/180p/1.m4s"); code != 200 {
		t.Errorf("the old broadcast's segment: %d", code)
	}
}
