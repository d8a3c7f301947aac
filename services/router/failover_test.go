package router_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/router"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestRouteIsCachedAndAnnounced(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o1, o2 := w.origin("w1"), w.origin("w2")
	o1.playlist(index, "e1r1", 10, "")
	o2.playlist(index, "e2r1", 11, "")
	w.routes.put("s", live("w1", 1))
	w.is(index, http.StatusOK, "10.m4s")
	asked := func() int {
		w.routes.mu.Lock()
		defer w.routes.mu.Unlock()
		return w.routes.asked
	}
	before, start := asked(), time.Now()
	for range 300 {
		if a := w.get(index); a.code != http.StatusOK {
			t.Fatalf("got %d", a.code)
		}
	}
	if n, most := asked()-before, 2+int(time.Since(start)/time.Second); n > most {
		t.Errorf("the store was asked %d times, want at most %d", n, most)
	}
	w.routes.put("s", live("w2", 2))
	before = asked()
	w.routes.changes <- "s"
	eventually(t, "the store asked without a request", func() error {
		if asked() == before {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	w.is(index, http.StatusOK, "11.m4s")
}

func TestNewBroadcastAfterAnEndedOne(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o := w.origin("w1")
	w.routes.put("s", live("w1", 1))
	o.playlist(index, "e1r1", 10, "#EXT-X-ENDLIST\n")
	w.is(index, http.StatusOK, "ENDLIST")
	ended := live("w1", 1)
	ended.Live, ended.Ended = false, true
	w.routes.put("s", ended)
	w.routes.changes <- "s"
	for range 5 {
		w.is(index, http.StatusOK, "ENDLIST")
	}
	// The next broadcast is placed and has nothing yet: its viewers don't get
	// the end of the one before.
	o.status(index, http.StatusServiceUnavailable)
	w.routes.put("s", live("w1", 2))
	w.routes.changes <- "s"
	w.is(index, http.StatusServiceUnavailable, "not live")
	o.status(index, http.StatusNotFound) // a worker that has not heard of it
	for range 5 {
		w.is(index, http.StatusServiceUnavailable, "not live")
		time.Sleep(100 * time.Millisecond)
	}
	o.playlist(index, "e2r1", 15, "")
	w.is(index, http.StatusOK, "15.m4s")
}

// TestInvariantsUnderFailovers has viewers play while the stream moves to and
// fro, origins die, freeze and lie, and the store and DNS go away:
// no viewer's media sequence goes down, no playlist fails, each segment has
// the bytes that its URL names, and nothing listed by a fenced origin after the
// router was told of its successor is served.
func TestInvariantsUnderFailovers(t *testing.T) {
	w := newWorld(t, router.Config{CacheBytes: 8 << 20, OriginTimeout: 300 * time.Millisecond})
	origins := map[string]*origin{}
	var epoch, number atomic.Int64
	epoch.Store(1)
	number.Store(10)
	var fenced atomic.Int64 // manifests of a fenced origin that lists on
	for i := range 2 {
		o := w.origin(fmt.Sprintf("w%d", i))
		origins[o.id] = o
		o.handle("/live/s/master.m3u8", func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(rw, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n720p/index.m3u8\n")
		})
		o.handle(index, func(rw http.ResponseWriter, r *http.Request) {
			e := epoch.Load()
			told, _ := strconv.ParseInt(r.Header.Get("Dionysia-Epoch"), 10, 64)
			switch {
			case told > e: // a successor that has not begun
				rw.WriteHeader(http.StatusServiceUnavailable)
				return
			case told < e || fmt.Sprintf("w%d", e%2) != o.id:
				fenced.Add(1) // it does not know: it lists on, with numbers of its own
				_, _ = io.WriteString(rw, playlist(fmt.Sprintf("e%dr1", told), int(number.Load())+1000))
				return
			}
			switch rand.IntN(20) {
			case 0:
				<-time.After(400 * time.Millisecond) // over the router's patience
			case 1:
				rw.WriteHeader(http.StatusInternalServerError)
			default:
				_, _ = io.WriteString(rw, playlist(fmt.Sprintf("e%dr1", e), int(number.Add(1))))
			}
		})
	}
	body := func(path string) string { return strings.Repeat(path+"|", 500) }
	for _, o := range origins {
		o.mu.Lock()
		o.fallback = func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, body(r.URL.Path)) }
		o.mu.Unlock()
	}
	route := func(e int64) stream.Route {
		r := live(fmt.Sprintf("w%d", e%2), uint64(e))
		for past := int64(1); past < e; past++ {
			r.Origins[uint64(past)] = fmt.Sprintf("w%d", past%2)
		}
		return r
	}
	w.routes.put("s", route(1))
	w.is(index, http.StatusOK, "m4s")

	stop := make(chan struct{})
	var viewers sync.WaitGroup
	var plays atomic.Int64
	for range 6 {
		viewers.Go(func() {
			last := 0
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := do(t.Context(), http.MethodGet, w.base+index)
				if err != nil || a.code != http.StatusOK {
					t.Errorf("playlist: %d %.100q %v", a.code, a.body, err)
					return
				}
				got := sequence(a.body)
				if got < last {
					t.Errorf("media sequence went from %d to %d", last, got)
					return
				}
				if got > 900 {
					t.Errorf("a fenced origin's list was served: %d", got)
					return
				}
				last = got
				for line := range strings.Lines(a.body) {
					if line = strings.TrimSpace(line); strings.HasPrefix(line, "../") && rand.IntN(3) == 0 {
						path := "/live/s/" + strings.TrimPrefix(line, "../")
						s, err := do(t.Context(), http.MethodGet, w.base+path)
						if err != nil || (s.code == http.StatusOK && s.body != body(path)) || (s.code != 200 && s.code != 503) {
							t.Errorf("segment %s: %d, %d bytes, %v", path, s.code, len(s.body), err)
						}
						plays.Add(1)
					}
				}
			}
		})
	}
	for step := range 12 {
		switch step % 4 {
		case 0, 3:
			// The router is told before the old origin lists on.
			e := epoch.Load() + 1
			w.tell(route(e))
			epoch.Store(e)
		case 1:
			w.routes.setAway(true)
		case 2:
			w.routes.setAway(false)
		}
		time.Sleep(200 * time.Millisecond)
	}
	close(stop)
	viewers.Wait()
	if plays.Load() == 0 {
		t.Error("nothing was played")
	}
	t.Logf("%d segments played, epoch %d, number %d, lists of fenced origins %d", plays.Load(), epoch.Load(), number.Load(), fenced.Load())
}

// tell stores s's route and waits until the router has surely read it: of two
// questions to the store after the change, the second began after it.
func (w *world) tell(r stream.Route) {
	w.t.Helper()
	w.routes.put("s", r)
	asked := func() int {
		w.routes.mu.Lock()
		defer w.routes.mu.Unlock()
		return w.routes.asked
	}
	before := asked()
	eventually(w.t, "router told", func() error {
		if asked() >= before+3 {
			return nil
		}
		w.routes.changes <- "s"
		return fmt.Errorf("store asked %d times", asked()-before)
	})
}
