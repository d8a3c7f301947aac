package router_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/router"
)

// offering is a ladder that tells what comes next.
type offering struct {
	*ladder
	mu      sync.Mutex
	name    string
	paths   []string
	asked   []string // the offers that the router had when it asked
	changed chan struct{}
}

func newOffering(l *ladder) *offering {
	o := &offering{ladder: l, name: "0.", changed: make(chan struct{})}
	l.handle("/live/s/next", func(rw http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("by") == "" || r.Header.Get("Dionysia-Epoch") == "" {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		o.mu.Lock()
		o.asked = append(o.asked, q.Get("after"))
		o.mu.Unlock()
		wait := time.After(time.Second)
		for {
			o.mu.Lock()
			name, paths, changed := o.name, o.paths, o.changed
			o.mu.Unlock()
			rw.Header().Set("Dionysia-Offer", name)
			rw.Header().Set("Dionysia-Version", version(l.now()))
			if name != q.Get("after") {
				_, _ = fmt.Fprintln(rw, strings.Join(paths, "\n"))
				return
			}
			select {
			case <-changed:
			case <-wait:
				rw.WriteHeader(http.StatusNoContent)
				return
			case <-r.Context().Done():
				return
			}
		}
	})
	return o
}

func (o *offering) tell(name string, paths ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.name, o.paths = name, paths
	close(o.changed)
	o.changed = make(chan struct{})
}

// waitAsked waits until the router has asked with an offer's name.
func (o *offering) waitAsked(name string) {
	o.t.Helper()
	eventually(o.t, "the router has "+name, func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !slices.Contains(o.asked, name) {
			return fmt.Errorf("asked after %q", o.asked)
		}
		return nil
	})
}

// TestFollowsWhatIsOffered shows that a router has a number's segments before it
// is listed, says so only then, and learns at once that it is listed.
func TestFollowsWhatIsOffered(t *testing.T) {
	w := newWorld(t, router.Config{})
	l := newLadder(w.origin("w1"), "e1r1", 10)
	o := newOffering(l)
	w.routes.put("s", live("w1", 1))
	w.warm(l)
	o.waitAsked("0.")
	let := make(chan struct{})
	slow := seg("e1r1", "360p", 11)
	l.handle(slow, func(rw http.ResponseWriter, _ *http.Request) {
		<-let
		_, _ = fmt.Fprint(rw, slow)
	})
	o.tell("1.10", "seg/e1r1/720p/11.m4s", "seg/e1r1/360p/11.m4s")
	eventually(t, "both being fetched", func() error {
		if l.count(slow) == 0 || l.count(seg("e1r1", "720p", 11)) == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	o.mu.Lock()
	early := slices.Contains(o.asked, "1.10")
	o.mu.Unlock()
	if early {
		t.Error("the router says that it has what it is still fetching")
	}
	if w.served(index, 11) {
		t.Error("what is only offered is listed")
	}
	close(let)
	o.waitAsked("1.10")
	var delays []time.Duration
	for n := 11; n < 20; n++ {
		if n > 11 {
			o.tell(fmt.Sprintf("%d.%d", n, n-1), fmt.Sprintf("seg/e1r1/720p/%d.m4s", n), fmt.Sprintf("seg/e1r1/360p/%d.m4s", n))
			o.waitAsked(fmt.Sprintf("%d.%d", n, n-1))
		}
		l.list(n)
		o.tell(fmt.Sprintf("%d.%d", n, n))
		eventually(t, "listed", func() error {
			if !w.served(other, n) {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		delays = append(delays, time.Since(l.listedAt[n]))
	}
	slices.Sort(delays)
	t.Logf("listed after %v", delays)
	if median := delays[len(delays)/2]; median > 200*time.Millisecond {
		t.Errorf("a number is listed %v after it could be", median)
	}
	l.kill()
	for n := 15; n < 20; n++ {
		if path := seg("e1r1", "720p", n); w.get(path).body != path || l.count(path) != 1 {
			t.Errorf("%s is not held; it was asked for %d times", path, l.count(path))
		}
	}
}

// TestOriginWithoutOffers shows that one which does not tell what comes next is
// not asked for it over and over.
func TestOriginWithoutOffers(t *testing.T) {
	t.Parallel() // it waits most of its time
	for name, code := range map[string]int{"not found": 404, "refuses": 403, "answers at once": 204} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, router.Config{})
			l := newLadder(w.origin("w1"), "e1r1", 10)
			l.handle("/live/s/next", func(rw http.ResponseWriter, _ *http.Request) {
				if code == http.StatusNoContent {
					rw.Header().Set("Dionysia-Offer", "0.")
				}
				rw.WriteHeader(code)
			})
			w.routes.put("s", live("w1", 1))
			w.warm(l)
			l.list(11)
			eventually(t, "listed", func() error {
				if !w.served(index, 11) || l.count("/live/s/next") == 0 {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			start, before := time.Now(), l.count("/live/s/next")
			for time.Since(start) < time.Second {
				w.served(index, 11)
			}
			took := time.Since(start)
			if n := l.count("/live/s/next") - before; n > 2+int(4*took.Seconds()) {
				t.Errorf("asked %d times within %v", n, took)
			}
		})
	}
}

// TestOfferThatNeverEnds has an origin that says something else each time it is asked.
func TestOfferThatNeverEnds(t *testing.T) {
	w := newWorld(t, router.Config{})
	l := newLadder(w.origin("w1"), "e1r1", 10)
	const next = "/live/s/next"
	l.handle(next, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Dionysia-Offer", fmt.Sprint(l.count(next)))
	})
	w.routes.put("s", live("w1", 1))
	w.warm(l)
	eventually(t, "many questions", func() error {
		if n := l.count(next); n < 100 {
			return fmt.Errorf("%d", n)
		}
		w.served(index, 10)
		return nil
	})
	before := l.count(next)
	start := time.Now()
	for time.Since(start) < 2*time.Second {
		w.served(index, 10)
	}
	took := time.Since(start)
	if n := l.count(next) - before; n > int(60*(took.Seconds()+1)) {
		t.Errorf("asked %d times within %v", n, took)
	}
}
