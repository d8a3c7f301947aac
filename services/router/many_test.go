package router_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/router"
)

// many is an origin of many streams alike, s0, s1 and so on, of two renditions
// each. A segment of a number above free is given when it is let.
type many struct {
	*origin
	streams int

	mu      sync.Mutex
	last    int // listed
	offered int
	changed chan struct{}
	follow  map[string]int // questions by stream
	free    int
	let     chan struct{}
	flying  int // requests for segments that are not let
	most    int
}

func newMany(t *testing.T, id string, streams int) *many {
	m := &many{
		origin: newOrigin(t, id), streams: streams, last: 10, offered: 10, free: 10,
		changed: make(chan struct{}), let: make(chan struct{}), follow: map[string]int{},
	}
	m.fallback = m.answer
	return m
}

func manyPath(stream int, rest string, of ...any) string {
	return fmt.Sprintf("/live/s%d/", stream) + fmt.Sprintf(rest, of...)
}

func (m *many) answer(rw http.ResponseWriter, r *http.Request) {
	parts := strings.Split(r.URL.Path, "/") // "", live, stream, …
	rest := strings.Join(parts[3:], "/")
	m.mu.Lock()
	last, let := m.last, m.let
	m.mu.Unlock()
	switch {
	case rest == "master.m3u8":
		_, _ = io.WriteString(rw, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n720p/index.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\n360p/index.m3u8\n")
	case strings.HasSuffix(rest, "/index.m3u8"):
		rw.Header().Set("Dionysia-Version", version("e1r1", last))
		_, _ = io.WriteString(rw, strings.ReplaceAll(playlist("e1r1", last), "720p", parts[3]))
	case rest == "next":
		m.next(rw, r, parts[2])
	case strings.HasPrefix(rest, "seg/"):
		var n int
		_, _ = fmt.Sscanf(parts[6], "%d.m4s", &n)
		if n > m.free {
			m.fly(1)
			defer m.fly(-1)
			select {
			case <-let:
			case <-r.Context().Done():
				return
			}
		}
		_, _ = io.WriteString(rw, r.URL.Path)
	default:
		http.NotFound(rw, r)
	}
}

func (m *many) fly(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flying += n
	m.most = max(m.most, m.flying)
}

func (m *many) inFlight() (now, most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flying, m.most
}

func (m *many) next(rw http.ResponseWriter, r *http.Request, stream string) {
	after := r.URL.Query().Get("after")
	m.mu.Lock()
	m.follow[stream]++
	m.mu.Unlock()
	wait := time.After(time.Second)
	for {
		m.mu.Lock()
		name, offered, last, changed := fmt.Sprintf("%d.%d", m.offered, m.last), m.offered, m.last, m.changed
		m.mu.Unlock()
		rw.Header().Set("Dionysia-Offer", name)
		rw.Header().Set("Dionysia-Version", version("e1r1", last))
		if name != after {
			_, _ = fmt.Fprintf(rw, "seg/e1r1/720p/%d.m4s\nseg/e1r1/360p/%[1]d.m4s\n", offered)
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
}

// set changes what is listed and offered.
func (m *many) set(listed, offered int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last, m.offered = listed, offered
	close(m.changed)
	m.changed = make(chan struct{})
}

// newManyWorld is a router before m, all of whose streams it follows and holds.
func newManyWorld(t *testing.T, m *many, cfg router.Config) *world {
	t.Helper()
	w := &world{t: t, routes: newRoutes(), at: addresses{m.id: fmt.Sprintf("127.0.0.1:%d", m.port)}}
	for s := range m.streams {
		w.routes.put(fmt.Sprint("s", s), live(m.id, 1))
	}
	w.start(cfg)
	var viewers sync.WaitGroup
	for s := range m.streams {
		viewers.Go(func() {
			for _, rest := range []string{"master.m3u8", "720p/index.m3u8", "360p/index.m3u8"} {
				if a, err := do(t.Context(), http.MethodGet, w.base+manyPath(s, "%s", rest)); err != nil || a.code != http.StatusOK {
					t.Errorf("s%d: %d %v", s, a.code, err)
				}
			}
		})
	}
	viewers.Wait()
	eventually(t, "every stream followed and held", func() error {
		for s := range m.streams {
			m.mu.Lock()
			n := m.follow[fmt.Sprint("s", s)]
			m.mu.Unlock()
			if n < 2 {
				return fmt.Errorf("s%d: %d questions", s, n)
			}
			for _, rendition := range []string{"720p", "360p"} {
				if m.count(manyPath(s, "seg/e1r1/%s/10.m4s", rendition)) == 0 {
					return fmt.Errorf("s%d is not held", s)
				}
			}
		}
		return nil
	})
	return w
}

// steady waits until the number of requests in flight has not changed for a while.
func (m *many) steady(t *testing.T, atLeast int) {
	t.Helper()
	since, before := time.Now(), -1
	eventually(t, "no more requests in flight", func() error {
		now, _ := m.inFlight()
		if now != before {
			since, before = time.Now(), now
		}
		if now < atLeast || time.Since(since) < 200*time.Millisecond {
			return fmt.Errorf("%d", now)
		}
		return nil
	})
}

// TestFetchesAheadAreBounded has all streams of an origin offer their next number,
// list it, and give none of its segments.
func TestFetchesAheadAreBounded(t *testing.T) {
	m := newMany(t, "w1", 60)
	w := newManyWorld(t, m, router.Config{OriginTimeout: 20 * time.Second})
	m.set(10, 11)
	m.steady(t, 64)
	eventually(t, "as many in the metrics as at the origin", func() error {
		_, offered := m.inFlight()
		if offered > 64 {
			t.Fatalf("%d segments fetched at once from one origin because they were offered", offered)
		}
		if n := metric(w.get("/metrics").body, `dionysia_router_ahead_fetches{for="follow"}`); int(n) != offered {
			return fmt.Errorf("%v fetches for follow in the metrics, %d at the origin", n, offered)
		}
		return nil
	})
	// A viewer's own request waits behind none of these: not for another segment …
	start := time.Now()
	if path := manyPath(3, "seg/e1r1/720p/2.m4s"); w.get(path).body != path {
		t.Error("a viewer's segment is not given")
	}
	// … nor for one of those that are in line.
	var inLine sync.WaitGroup
	for s := range m.streams {
		if m.count(manyPath(s, "seg/e1r1/720p/11.m4s")) == 0 {
			inLine.Go(func() { _, _ = do(t.Context(), http.MethodGet, w.base+manyPath(s, "seg/e1r1/720p/11.m4s")) })
			eventually(t, "a viewer's request at the origin", func() error {
				if m.count(manyPath(s, "seg/e1r1/720p/11.m4s")) == 0 {
					return fmt.Errorf("not yet")
				}
				return nil
			})
			break
		}
	}
	if took := time.Since(start); took > 15*time.Second { // the others' time at the origin is 20 s
		t.Errorf("viewers waited %v", took)
	}
	// The manifests that list them wait in a lane of their own.
	m.set(11, 11)
	for s := range m.streams {
		go func() { _, _ = do(t.Context(), http.MethodGet, w.base+manyPath(s, "720p/index.m3u8")) }()
	}
	m.steady(t, 65)
	if _, most := m.inFlight(); most > 2*64+8+1 {
		t.Errorf("%d segments fetched at once from one origin", most)
	}
	if path := manyPath(4, "seg/e1r1/720p/2.m4s"); w.get(path).body != path {
		t.Error("a viewer's segment is not given")
	}
	close(m.let)
	inLine.Wait()
	for s := range m.streams {
		for _, rendition := range []string{"720p", "360p"} {
			w.is(manyPath(s, "%s/index.m3u8", rendition), http.StatusOK, "/11.m4s")
			path := manyPath(s, "seg/e1r1/%s/11.m4s", rendition)
			w.is(path, http.StatusOK, path)
		}
	}
	eventually(t, "every place given back", func() error {
		page := w.get("/metrics").body
		for _, lane := range []string{"hold", "follow", "prefetch"} {
			for _, what := range []string{"fetches", "waiting"} {
				if n := metric(page, fmt.Sprintf("dionysia_router_ahead_%s{for=%q}", what, lane)); n != 0 {
					return fmt.Errorf("%s %s: %v", lane, what, n)
				}
			}
		}
		return nil
	})
}
