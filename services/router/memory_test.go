package router

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// oneOrigin is a store and a resolver of streams that all have one origin.
type oneOrigin struct {
	addr  string
	ended atomic.Bool
}

func (o *oneOrigin) Route(_ context.Context, id string) (stream.Route, error) {
	r := stream.Route{Stream: id, Live: true, Epoch: 1, Given: 1, Origin: "w1", Window: 60, HoldBack: 12}
	if o.ended.Load() {
		r.Live, r.Origin, r.Epoch, r.Origins = false, "", 0, map[uint64]string{1: "w1"}
	}
	return r, nil
}
func (o *oneOrigin) Watch(ctx context.Context) <-chan string          { return make(chan string) }
func (o *oneOrigin) Ping(context.Context) error                       { return nil }
func (o *oneOrigin) Lookup(context.Context, string) ([]string, error) { return []string{o.addr}, nil }
func (o *oneOrigin) Failed(string)                                    {}

// TestEndedStreamsLeaveNothing watches many streams of a long window, ends them, and
// looks at what stays: no goroutine, no connection, and of the memory what the
// highest epochs take.
func TestEndedStreamsLeaveNothing(t *testing.T) {
	const streams, listed = 100, 300
	var body strings.Builder
	body.WriteString("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:1\n")
	for n := 1; n <= listed; n++ {
		fmt.Fprintf(&body, "#EXTINF:2.000,\n../seg/e1r1/720p/%d.m4s\n", n)
	}
	origin := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "master.m3u8"):
			_, _ = io.WriteString(rw, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n720p/index.m3u8\n")
		case strings.HasSuffix(r.URL.Path, "index.m3u8"):
			_, _ = io.WriteString(rw, body.String())
		case strings.HasSuffix(r.URL.Path, "/next"):
			rw.Header().Set(headerOffer, "1")
			if r.URL.Query().Get("after") == "1" {
				select {
				case <-r.Context().Done():
				case <-time.After(nextWait):
				}
				rw.WriteHeader(http.StatusNoContent)
			}
		case strings.HasSuffix(r.URL.Path, ".m4s"):
			_, _ = io.WriteString(rw, r.URL.Path)
		default:
			http.NotFound(rw, r)
		}
	}))
	defer origin.Close()
	o := &oneOrigin{addr: origin.Listener.Addr().String()}
	goroutines, heap := runtime.NumGoroutine(), heapInUse()
	r, err := New(Config{CacheBytes: 1 << 20, OriginTimeout: time.Minute}, Deps{Store: o, Resolver: o})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	usedAt := func(at time.Time) {
		r.streams.Range(func(_, st any) bool {
			st.(*streamState).used.Store(at.UnixNano())
			return true
		})
	}
	for s := range streams {
		for _, rest := range []string{"master.m3u8", "720p/index.m3u8"} {
			testkit.Eventually(t, time.Minute, rest, func() error {
				rec := httptest.NewRecorder()
				r.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, fmt.Sprintf("/live/s%d/%s", s, rest), nil))
				usedAt(time.Now()) // all are watched until the last one is, however long that takes
				if rec.Code != http.StatusOK {
					return fmt.Errorf("s%d: %d", s, rec.Code)
				}
				return nil
			})
		}
	}
	testkit.Eventually(t, time.Minute, "all watched", func() error {
		usedAt(time.Now())
		if n := r.watched.Load(); n != streams {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	full := heapInUse()
	t.Logf("%d streams watched: %d KiB, %d goroutines", streams, (full-heap)>>10, runtime.NumGoroutine())

	o.ended.Store(true)
	usedAt(time.Now().Add(-watchedFor))
	testkit.Eventually(t, time.Minute, "none watched", func() error {
		r.transport.CloseIdleConnections()
		r.following.CloseIdleConnections()
		if n, now := r.watched.Load(), runtime.NumGoroutine(); n != 0 || now > goroutines+10 {
			return fmt.Errorf("%d watched, %d goroutines, %d before", n, now, goroutines)
		}
		return nil
	})
	for _, l := range []*lane{r.holdLane, r.followLane, r.prefetchLane} {
		if used, waiting := l.counts(); used+waiting+len(l.origins) != 0 {
			t.Errorf("%s: %d in flight, %d wait, of %d origins", l.name, used, waiting, len(l.origins))
		}
	}
	later := time.Now().Add(2 * time.Minute)
	r.sweep(later)
	r.streams.Range(func(id, st any) bool {
		if n := len(st.(*streamState).manifests); n != 0 || st.(*streamState).epoch.Load() != 1 {
			t.Errorf("%v: %d manifests, epoch %d", id, n, st.(*streamState).epoch.Load())
		}
		return true
	})
	after := heapInUse()
	t.Logf("ended: %d KiB", (after-heap)>>10)
	if after-heap > (full-heap)/2 {
		t.Errorf("%d KiB are kept of %d", (after-heap)>>10, (full-heap)>>10)
	}
}

// TestViewersThatLeave has viewers ask for segments that trickle, and leave: their
// fetches are given up, but not those that somebody waits for.
func TestViewersThatLeave(t *testing.T) {
	let := make(chan struct{})
	var flying atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		flying.Add(1)
		defer flying.Add(-1)
		rw.Header().Set("Content-Length", "4")
		_, _ = io.WriteString(rw, "ab")
		rw.(http.Flusher).Flush()
		select {
		case <-let:
			_, _ = io.WriteString(rw, "cd")
		case <-r.Context().Done():
		}
	}))
	defer origin.Close()
	o := &oneOrigin{addr: origin.Listener.Addr().String()}
	r, err := New(Config{NoPrefetch: true}, Deps{Store: o, Resolver: o})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	router := httptest.NewServer(r)
	defer router.Close()
	get := func(ctx context.Context, n int) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/live/s/seg/e1r1/720p/%d.m4s", router.URL, n), nil)
		if err != nil {
			return nil, err
		}
		return http.DefaultTransport.RoundTrip(req)
	}
	const viewers = 20
	ctx, leave := context.WithCancel(t.Context())
	for n := range viewers {
		resp, err := get(ctx, n+1)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	stays, err := get(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Body.Close()
	leave()
	testkit.Eventually(t, time.Minute, "all fetches but one ended", func() error {
		r.cache.giveUp(time.Now().Add(time.Second)) // as if they were old
		if n := flying.Load(); n != 1 {
			return fmt.Errorf("%d in flight", n)
		}
		return nil
	})
	again, err := get(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Body.Close()
	close(let)
	for _, resp := range []*http.Response{stays, again} {
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "abcd" {
			t.Errorf("%s: %q, %v", resp.Request.URL.Path, body, err)
		}
	}
	testkit.Eventually(t, time.Minute, "the memory of what was given up", func() error {
		if bytes, n := r.cache.size(); bytes != 8 || n != 2 {
			return fmt.Errorf("%d bytes, %d segments", bytes, n)
		}
		return nil
	})
}

// TestPrefetchThatTrickles has a segment that only the look at the window wants, and
// that does not come at first: once its fetch is given up, it is fetched again.
func TestPrefetchThatTrickles(t *testing.T) {
	t.Parallel() // it waits most of its time
	var asked atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "master.m3u8"):
			_, _ = io.WriteString(rw, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n720p/index.m3u8\n")
		case strings.HasSuffix(r.URL.Path, "index.m3u8"):
			_, _ = io.WriteString(rw, "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:1\n#EXTINF:2.000,\n../seg/e1r1/720p/1.m4s\n")
		case strings.HasSuffix(r.URL.Path, ".m4s"):
			rw.Header().Set("Content-Length", "2")
			_, _ = io.WriteString(rw, "a")
			if asked.Add(1) == 1 {
				rw.(http.Flusher).Flush()
				<-r.Context().Done()
				return
			}
			_, _ = io.WriteString(rw, "b")
		default:
			http.NotFound(rw, r)
		}
	}))
	defer origin.Close()
	o := &oneOrigin{addr: origin.Listener.Addr().String()}
	r, err := New(Config{}, Deps{Store: o, Resolver: o})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	var first time.Time
	testkit.Eventually(t, time.Minute, "the segment held", func() error {
		// A viewer that is content with the playlist.
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/live/s/720p/index.m3u8", nil))
		if asked.Load() == 1 && first.IsZero() {
			first = time.Now()
		}
		// Some rounds after the prefetch has ceased to wait, as if it were old then.
		if !first.IsZero() && time.Since(first) > prefetchTime+2*warmEvery+warmEvery/2 {
			r.cache.giveUp(time.Now().Add(time.Second))
		}
		if !r.cache.holds("/live/s/seg/e1r1/720p/1.m4s") {
			return fmt.Errorf("asked for %d times", asked.Load())
		}
		return nil
	})
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestGuessesKeepNothingOut asks for more renditions than a stream can have.
func TestGuessesKeepNothingOut(t *testing.T) {
	now := time.Unix(1000, 0)
	st := &streamState{id: "s", manifests: map[string]*manifest{}}
	good := st.manifest(target{path: "good"}, now)
	good.good.Store(&manifestBody{at: now})
	busy := st.manifest(target{path: "busy"}, now)
	busy.fetching = make(chan struct{})
	for i := range 3 * maxManifests {
		now = now.Add(time.Millisecond)
		if st.manifest(target{path: fmt.Sprint("guess", i)}, now) == nil {
			t.Fatalf("guess %d keeps the next one out", i)
		}
	}
	if st.manifest(target{path: "good"}, now) != good || st.manifest(target{path: "busy"}, now) != busy || len(st.manifests) > maxManifests {
		t.Errorf("what is there was dropped for a guess; %d paths", len(st.manifests))
	}
}

// TestListingsAreBounded reads manifests that are as large as one may be.
func TestListingsAreBounded(t *testing.T) {
	for _, c := range []struct {
		name string
		k    kind
		body string
	}{
		{"playlist", kindHLS, "#EXTM3U\n" + strings.Repeat("#EXTINF:2,\n../seg/e1r1/a/1.m4s\n", 30_000)},
		{"representations", kindDASH, "<MPD><Period><AdaptationSet><SegmentTemplate media='$Number$' initialization='i'/>" +
			strings.Repeat("<Representation id='a'/>", 30_000) + "</AdaptationSet></Period></MPD>"},
		{"timeline", kindDASH, "<MPD><Period><AdaptationSet><SegmentTemplate media='$Number$'><SegmentTimeline>" +
			strings.Repeat("<S r='2000000000'/>", 30_000) + "</SegmentTimeline></SegmentTemplate>" +
			strings.Repeat("<Representation id='a'/>", 30_000) + "</AdaptationSet></Period></MPD>"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n := len(listedBy("/live/s/x", c.k, []byte(c.body))); n == 0 || n > maxListed {
				t.Errorf("%d listed", n)
			}
		})
	}
}
