package router_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/router"
)

// TestOneFetchForAll has everything ask for the same segments at once: the offer,
// the manifests that list them, the look at the whole window, and viewers. Each is
// fetched from its origin once.
func TestOneFetchForAll(t *testing.T) {
	w := newWorld(t, router.Config{OriginTimeout: 20 * time.Second})
	l := newLadder(w.origin("w1"), "e1r1", 10)
	o := newOffering(l)
	w.routes.put("s", live("w1", 1))
	w.warm(l)
	o.waitAsked("0.")
	l.slow(30 * time.Millisecond)
	const last = 30
	for n := 11; n <= last; n++ {
		paths := []string{seg("e1r1", "720p", n), seg("e1r1", "360p", n)}
		// Every other number is listed while its offer is still being fetched.
		offer := func() {
			o.tell(fmt.Sprintf("%d.%d", n, n-1), fmt.Sprintf("seg/e1r1/720p/%d.m4s", n), fmt.Sprintf("seg/e1r1/360p/%d.m4s", n))
		}
		if n%2 == 0 {
			l.list(n)
			offer()
		} else {
			offer()
			l.list(n)
		}
		var viewers sync.WaitGroup
		for _, path := range append(paths, index, other, mpd) {
			for range 2 {
				viewers.Go(func() {
					if a, err := do(t.Context(), http.MethodGet, w.base+path); err != nil || a.code != http.StatusOK {
						t.Errorf("%s: %d, %v", path, a.code, err)
					}
				})
			}
		}
		viewers.Wait()
		for _, path := range []string{index, other, mpd} {
			eventually(t, "listed", func() error {
				if !w.served(path, n) {
					return fmt.Errorf("%d is not yet in %s", n, path)
				}
				return nil
			})
		}
	}
	// Two looks at the window after the last number.
	before := l.count("/live/s/next")
	eventually(t, "time passing", func() error {
		if l.count("/live/s/next") < before+3 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	for n := 6; n <= last; n++ {
		for _, rendition := range []string{"720p", "360p"} {
			if path := seg("e1r1", rendition, n); l.count(path) != 1 {
				t.Errorf("%s was fetched %d times", path, l.count(path))
			}
		}
	}
	for _, rendition := range []string{"720p", "360p"} {
		if path := "/live/s/seg/e1r1/" + rendition + "/init.mp4"; l.count(path) != 1 {
			t.Errorf("%s was fetched %d times", path, l.count(path))
		}
	}
}

// TestSlowToBeginThenTrickles has an origin that is silent for longer than a
// manifest is held, and gives then a byte now and then: it is not dead, so the
// manifest is given out when it begins.
func TestSlowToBeginThenTrickles(t *testing.T) {
	w := newWorld(t, router.Config{})
	l := newLadder(w.origin("w1"), "e1r1", 10)
	w.routes.put("s", live("w1", 1))
	w.warm(l)
	var mu sync.Mutex
	var began time.Time // when the last of the two began
	for _, rendition := range []string{"720p", "360p"} {
		l.handle(seg("e1r1", rendition, 11), func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Length", "1000")
			tick := time.NewTicker(800 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-r.Context().Done():
					return
				}
				mu.Lock()
				if began.IsZero() {
					began = time.Now()
				}
				mu.Unlock()
				if _, err := io.WriteString(rw, "0"); err != nil {
					return
				}
				rw.(http.Flusher).Flush()
			}
		})
	}
	l.list(11)
	eventually(t, "listed", func() error {
		if !w.served(index, 11) {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	mu.Lock()
	defer mu.Unlock()
	if took := time.Since(began); took > 10*time.Second { // they take 13 minutes
		t.Errorf("listed %v after its segments began to come", took)
	}
	if w.unheld("slow") == 0 {
		t.Error("not counted")
	}
}

// TestRefusalThatTrickles has an origin whose answer is no, and whose reasons do
// not end.
func TestRefusalThatTrickles(t *testing.T) {
	w := newWorld(t, router.Config{})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	refuse := func(code int) http.HandlerFunc {
		return func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Length", "1000")
			rw.WriteHeader(code)
			for {
				_, _ = io.WriteString(rw, "0")
				rw.(http.Flusher).Flush()
				select {
				case <-time.After(50 * time.Millisecond):
				case <-r.Context().Done():
					return
				}
			}
		}
	}
	o.handle(segment, refuse(http.StatusNotFound))
	o.handle(index, refuse(http.StatusServiceUnavailable))
	for path, code := range map[string]int{segment: http.StatusNotFound, index: http.StatusServiceUnavailable} {
		start := time.Now()
		if a := w.get(path); a.code != code {
			t.Errorf("%s: %d, want %d", path, a.code, code)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s: refused after %v", path, took)
		}
	}
}
