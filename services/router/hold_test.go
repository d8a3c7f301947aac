package router_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/router"
)

const (
	master = "/live/s/master.m3u8"
	other  = "/live/s/360p/index.m3u8"
	mpd    = "/live/s/manifest.mpd"
)

// ladder is an origin's stream s of two renditions, 720p and 360p.
type ladder struct {
	*origin
	mu       sync.Mutex
	run      string
	last     int
	listedAt map[int]time.Time
}

func newLadder(o *origin, run string, last int) *ladder {
	l := &ladder{origin: o, run: run, listedAt: map[int]time.Time{}}
	l.list(last)
	o.handle(master, func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n720p/index.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n360p/index.m3u8\n")
	})
	for _, rendition := range []string{"720p", "360p"} {
		o.handle("/live/s/"+rendition+"/index.m3u8", func(rw http.ResponseWriter, _ *http.Request) {
			run, last := l.now()
			rw.Header().Set("Dionysia-Version", version(run, last))
			_, _ = io.WriteString(rw, strings.ReplaceAll(playlist(run, last), "720p", rendition))
		})
	}
	o.handle(mpd, func(rw http.ResponseWriter, _ *http.Request) {
		run, last := l.now()
		rw.Header().Set("Dionysia-Version", version(run, last))
		fmt.Fprintf(rw, `<MPD type="dynamic"><Period><AdaptationSet><SegmentTemplate media="seg/%s/$RepresentationID$/$Number$.m4s" `+
			`initialization="seg/%[1]s/$RepresentationID$/init.mp4" startNumber="%d"><SegmentTimeline><S t="0" d="2"/><S d="2" r="3"/></SegmentTimeline>`+
			`</SegmentTemplate><Representation id="720p"/><Representation id="360p"/></AdaptationSet></Period></MPD>`, run, last-4)
	})
	o.mu.Lock()
	o.fallback = func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, r.URL.Path) }
	o.mu.Unlock()
	return l
}

func version(run string, last int) string {
	return strings.ReplaceAll(strings.TrimPrefix(run, "e"), "r", ".") + fmt.Sprintf(".%d", last)
}

func (l *ladder) now() (string, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.run, l.last
}

func (l *ladder) list(last int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last, l.listedAt[last] = last, time.Now()
}

func seg(run, rendition string, n int) string {
	return fmt.Sprintf("/live/s/seg/%s/%s/%d.m4s", run, rendition, n)
}

// slow makes every segment take d to fetch.
func (l *ladder) slow(d time.Duration) {
	l.origin.mu.Lock()
	defer l.origin.mu.Unlock()
	l.fallback = func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(d)
		_, _ = io.WriteString(rw, r.URL.Path)
	}
}

// warm watches until the router holds all that is listed.
func (w *world) warm(l *ladder) {
	w.t.Helper()
	w.is(master, http.StatusOK, "360p")
	run, last := l.now()
	eventually(w.t, "the window held", func() error {
		for n := last - 4; n <= last; n++ {
			for _, rendition := range []string{"720p", "360p"} {
				if l.count(seg(run, rendition, n)) == 0 {
					return fmt.Errorf("%s %d not asked for", rendition, n)
				}
			}
		}
		return nil
	})
	for _, path := range []string{index, other, mpd} {
		w.is(path, http.StatusOK, "")
	}
}

// served says whether path lists number n. No viewer waits long for what can't be
// served yet; see quick.
func (w *world) served(path string, n int) bool {
	w.t.Helper()
	a := w.quick(path)
	if a.code != http.StatusOK {
		w.t.Fatalf("%s: %d", path, a.code)
	}
	if path == mpd {
		return strings.Contains(a.body, fmt.Sprintf(`startNumber="%d"`, n-4))
	}
	return strings.Contains(a.body, fmt.Sprintf("/%d.m4s", n))
}

// unheld reads how many manifests were given out without their segments.
func (w *world) unheld(reason string) int {
	return int(metric(w.get("/metrics").body, `dionysia_router_unheld_manifests_total{reason="`+reason+`"}`))
}

func TestWhatIsListedIsHeld(t *testing.T) {
	w := newWorld(t, router.Config{})
	l := newLadder(w.origin("w1"), "e1r1", 10)
	w.routes.put("s", live("w1", 1))
	w.warm(l)
	// The segments of number 11 come when they are let.
	let := make(chan struct{})
	for _, rendition := range []string{"720p", "360p"} {
		path := seg("e1r1", rendition, 11)
		l.handle(path, func(rw http.ResponseWriter, _ *http.Request) {
			<-let
			_, _ = io.WriteString(rw, path)
		})
	}
	l.list(11)
	eventually(t, "both segments being fetched", func() error {
		if w.served(index, 11) || w.served(other, 11) || w.served(mpd, 11) {
			t.Fatal("listed before it is held")
		}
		if l.count(seg("e1r1", "720p", 11)) == 0 || l.count(seg("e1r1", "360p", 11)) == 0 {
			return fmt.Errorf("not asked for")
		}
		return nil
	})
	close(let)
	for _, path := range []string{index, other, mpd} {
		eventually(t, path+" lists it", func() error {
			if !w.served(path, 11) {
				return fmt.Errorf("not yet")
			}
			return nil
		})
	}
	l.kill()
	for _, rendition := range []string{"720p", "360p"} {
		if path := seg("e1r1", rendition, 11); w.get(path).body != path {
			t.Errorf("%s is listed and not to be had", path)
		}
	}
	if n := l.count(seg("e1r1", "720p", 11)); n != 1 {
		t.Errorf("fetched %d times", n)
	}
}

func TestOriginDiesWhileItsSegmentIsFetched(t *testing.T) {
	w := newWorld(t, router.Config{})
	l := newLadder(w.origin("w1"), "e1r1", 10)
	w.routes.put("s", live("w1", 1))
	w.warm(l)
	l.handle(seg("e1r1", "720p", 11), func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	l.list(11)
	eventually(t, "the segment being fetched", func() error {
		if w.served(index, 11); l.count(seg("e1r1", "720p", 11)) == 0 {
			return fmt.Errorf("not asked for")
		}
		return nil
	})
	l.kill()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if w.served(index, 11) || w.served(mpd, 11) {
			t.Fatal("what died with its origin is listed")
		}
		if !w.served(index, 10) {
			t.Fatal("the former playlist is not served")
		}
	}
}

func TestHoldIsBounded(t *testing.T) {
	start := func(t *testing.T, run string) (*world, *ladder) {
		w := newWorld(t, router.Config{})
		l := newLadder(w.origin("w1"), "e1r1", 10)
		w.routes.put("s", live("w1", 1))
		w.warm(l)
		l.mu.Lock()
		l.run = run
		l.mu.Unlock()
		return w, l
	}
	listed := func(w *world, reason string) {
		w.t.Helper()
		began := time.Now()
		eventually(w.t, "listed", func() error {
			if !w.served(index, 11) {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		w.t.Logf("listed after %v", time.Since(began))
		if w.unheld(reason) == 0 {
			w.t.Errorf("not counted as %s", reason)
		}
	}
	t.Run("slow", func(t *testing.T) {
		w, l := start(t, "e1r1")
		l.handle(seg("e1r1", "720p", 11), func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(rw, "0")
			rw.(http.Flusher).Flush()
			<-r.Context().Done()
		})
		l.list(11)
		listed(w, "slow")
	})
	t.Run("missing", func(t *testing.T) {
		w, l := start(t, "e1r1")
		l.status(seg("e1r1", "720p", 11), http.StatusNotFound)
		l.list(11)
		listed(w, "missing")
	})
	t.Run("of a former origin that is gone", func(t *testing.T) {
		w, l := start(t, "e1r1")
		route := live("w2", 2)
		route.Origins[1] = "w1"
		l.kill()
		o := w.origin("w2")
		newLadder(o, "e1r1", 11) // goes on with what the tail says
		w.tell(route)
		listed(w, "missing")
	})
}

func TestFirstManifestIsNotHeld(t *testing.T) {
	w := newWorld(t, router.Config{})
	l := newLadder(w.origin("w1"), "e1r1", 10)
	w.routes.put("s", live("w1", 1))
	for n := 6; n <= 10; n++ {
		l.handle(seg("e1r1", "720p", n), func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	}
	w.is(master, http.StatusOK, "720p")
	if !w.served(index, 10) || !w.served(mpd, 10) {
		t.Error("the first manifest waits")
	}
}

// TestOtherRenditionsAreAskedAtOnce shows that a number which one rendition lists
// is looked for in the others, long before their second is over.
func TestOtherRenditionsAreAskedAtOnce(t *testing.T) {
	w := newWorld(t, router.Config{})
	l := newLadder(w.origin("w1"), "e1r1", 10)
	w.routes.put("s", live("w1", 1))
	w.warm(l)
	var waits []time.Duration
	for n := 11; n < 20; n++ {
		l.list(n)
		eventually(t, "listed", func() error {
			if !w.served(index, n) {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		start := time.Now()
		eventually(t, "held", func() error {
			if l.count(seg("e1r1", "360p", n)) == 0 {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		waits = append(waits, time.Since(start))
	}
	slices.Sort(waits)
	t.Logf("after %v", waits)
	if median := waits[len(waits)/2]; median > 200*time.Millisecond {
		t.Errorf("the other rendition follows after %v", median)
	}
}

// TestEverythingListedOutlivesItsHost kills origins at any moment of their
// listing: whatever a viewer was shown by then can be had.
func TestEverythingListedOutlivesItsHost(t *testing.T) {
	w := newWorld(t, router.Config{})
	for epoch := uint64(1); epoch <= 8; epoch++ {
		run := fmt.Sprintf("e%dr1", epoch)
		id := fmt.Sprintf("w%d", epoch)
		l := newLadder(w.origin(id), run, int(epoch)*1000)
		w.routes.put("s", live(id, epoch))
		w.routes.changes <- "s"
		w.is(index, http.StatusOK, run)
		w.warm(l)
		l.slow(40 * time.Millisecond)
		// It dies at some moment after some number.
		dead, end := make(chan struct{}), int(epoch)*1000+3+rand.IntN(10)
		var last answer
		pace := time.NewTicker(50 * time.Millisecond)
		for alive := true; alive; {
			select {
			case <-dead:
				alive = false
			case <-pace.C:
				_, n := l.now()
				if l.list(n + 1); n+1 == end {
					time.AfterFunc(rand.N(100*time.Millisecond), func() { l.kill(); close(dead) })
				}
			default:
			}
			last = w.get([]string{index, other}[rand.IntN(2)])
		}
		pace.Stop()
		for range 5 {
			for _, path := range []string{index, other} {
				last = w.get(path)
				for line := range strings.Lines(last.body) {
					if line = strings.TrimSpace(line); !strings.HasPrefix(line, "../") || !strings.Contains(line, run) {
						continue
					}
					if path := "/live/s/" + strings.TrimPrefix(line, "../"); w.get(path).body != path {
						t.Errorf("%s is listed and not to be had", path)
					}
				}
			}
		}
	}
}

// TestHoldCostsOneFetch compares when a viewer sees numbers with and without it.
func TestHoldCostsOneFetch(t *testing.T) {
	const fetch, numbers = 50 * time.Millisecond, 15
	median := map[bool]time.Duration{}
	for _, held := range []bool{false, true} {
		w := newWorld(t, router.Config{NoPrefetch: !held, ManifestTTL: 50 * time.Millisecond})
		l := newLadder(w.origin("w1"), "e1r1", 10)
		w.routes.put("s", live("w1", 1))
		l.slow(fetch)
		if w.is(index, http.StatusOK, "10.m4s"); held {
			w.warm(l)
		}
		var delays []time.Duration
		for n := 11; n < 11+numbers; n++ {
			time.Sleep(rand.N(100 * time.Millisecond)) // at any moment of the router's pace
			l.list(n)
			eventually(t, "seen", func() error {
				if !w.served(index, n) {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			delays = append(delays, time.Since(l.listedAt[n]))
		}
		slices.Sort(delays)
		median[held] = delays[numbers/2]
		t.Logf("held %v: median %v of %v", held, median[held], delays)
	}
	if added := median[true] - median[false]; added > fetch+100*time.Millisecond {
		t.Errorf("seen %v later", added)
	}
}
