package origin

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// killed is a worker that listed numbers 1 to n as e1r1 and was killed.
func killed(t *testing.T, n int, c *clock) (w *world, r testRun) {
	t.Helper()
	w = newWorld(t, makeMedia(t, 2*(n+1)), newFakeStore(), c)
	r = w.start(placement("demo", 1, time.Now().Add(-time.Minute)), 1)
	r.inits(all...)
	for i := 1; i <= n; i++ {
		r.segment(i, all...)
	}
	w.eventually("/live/demo/180p/index.m3u8", 200, has(fmt.Sprintf("/%d.m4s", n)))
	return w, r
}

func (w *world) codes(want map[string]int) {
	w.t.Helper()
	for path, code := range want {
		if got, _ := w.get("/live/demo/" + path); got != code {
			w.t.Errorf("%s: %d, want %d", path, got, code)
		}
	}
}

func removed(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is still there: %v", path, err)
	}
	return nil
}

// loaded is how often the store was asked for a tail during f.
func (w *world) loaded(f func()) int {
	w.store.mu.Lock()
	before := w.store.loads
	w.store.mu.Unlock()
	f()
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	return w.store.loads - before
}

// A worker that was killed and continues its own tail serves what it lists: the
// same bytes, and nothing that is torn or was never listed.
func TestAKilledWorkerServesWhatItContinues(t *testing.T) {
	w, r := killed(t, 4, nil)
	before := map[string]answer{}
	for _, name := range all {
		for _, path := range []string{"seg/e1r1/" + name + "/init.mp4", "seg/e1r1/" + name + "/1.m4s"} {
			before[path] = w.do("GET", "/live/demo/"+path)
		}
	}
	w.origin.Close()
	r.segment(5, all...) // whole, and not listed any more
	path := func(name string) string { return filepath.Join(r.dir, name) }
	if err := os.Truncate(path("180p_2.m4s"), 1000); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := errors.Join(os.WriteFile(secret, w.media.read(t, "90p_3.m4s"), 0o644), os.Remove(path("90p_3.m4s")), os.Symlink(secret, path("90p_3.m4s")),
		os.WriteFile(path("aac_4.m4s"), make([]byte, len(w.media.read(t, "aac_4.m4s"))), 0o644)); err != nil {
		t.Fatal(err)
	}

	w = w.again()
	w.codes(map[string]int{"master.m3u8": 404, "180p/index.m3u8": 404})
	w.store.set(func() { w.store.fenced["demo"] = 2 })
	r2 := w.start(placement("demo", 2, time.Now().Add(-time.Minute)), 1)
	r2.inits(all...)
	r2.segment(1, all...)
	body := w.eventually("/live/demo/90p/index.m3u8", 200, has("e2r1/90p/1.m4s"))
	if !has("#EXT-X-MEDIA-SEQUENCE:1\n", "e1r1/90p/4.m4s\n#EXT-X-DISCONTINUITY\n")(body) {
		t.Errorf("continued:\n%s", body)
	}
	for path, was := range before {
		is := w.do("GET", "/live/demo/"+path)
		if is.code != 200 || string(is.body) != string(was.body) || is.header.Get("ETag") != was.header.Get("ETag") ||
			is.header.Get("Content-Type") != was.header.Get("Content-Type") {
			t.Errorf("%s: %d, %d bytes, %v; was %d bytes, %v", path, is.code, len(is.body), is.header, len(was.body), was.header)
		}
	}
	w.codes(map[string]int{"seg/e1r1/180p/2.m4s": 404, "seg/e1r1/90p/3.m4s": 404, "seg/e1r1/aac/4.m4s": 404, "seg/e1r1/aac/5.m4s": 404,
		"seg/e1r1/aac/2.m4s": 200, "seg/e1r1/180p/3.m4s": 200, "seg/e1r1/180p/4.m4s": 200, "seg/e2r1/180p/1.m4s": 200})
}

// A former run's segments leave with the window, and its directory with them; not
// while they are listed.
func TestAFormerRunLeavesWithTheWindow(t *testing.T) {
	c := &clock{at: time.Now()}
	w, r := killed(t, 16, c)
	w = w.again()
	w.store.set(func() { w.store.fenced["demo"] = 2 })
	p := placement("demo", 2, time.Now().Add(-time.Minute))
	r2 := w.start(p, 1)
	r2.inits(all...)
	r2.segment(1, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("e1r1", "e2r1"))
	bytes, size := w.origin.sweep(w.origin.lookup("demo")), int64(0)
	for _, n := range all {
		size += int64(len(w.media.read(t, n+"_1.m4s")))
	}
	if bytes < size*16 {
		t.Errorf("%d bytes held with 16 segments of %d", bytes, size)
	}
	c.Add(stream.MaxWindow + 2*time.Minute) // the publisher is away
	w.origin.sweep(w.origin.lookup("demo"))
	w.codes(map[string]int{"seg/e1r1/180p/16.m4s": 200, "seg/e1r1/aac/init.mp4": 200})
	for n := 2; n <= 17; n++ {
		r2.segment(n, all...)
	}
	w.eventually("/live/demo/180p/index.m3u8", 200, func(b string) bool { return !strings.Contains(b, "e1r1") })
	w.codes(map[string]int{"seg/e1r1/180p/16.m4s": 200})
	c.Add(31 * time.Second)
	w.eventually("/live/demo/seg/e1r1/180p/16.m4s", 404, nil)
	testkit.Eventually(t, wait, "the directory to go", func() error { return removed(r.dir) })
	w.codes(map[string]int{"seg/e1r1/180p/init.mp4": 404, "seg/e2r1/180p/17.m4s": 200})
}

// Another worker has the stream now: viewers still fetch what it continues from
// here, and asking for anything else costs the store nothing.
func TestFormerRunsOfAStreamThatIsElsewhere(t *testing.T) {
	c := &clock{at: time.Now()}
	w, r := killed(t, 2, c)
	w2 := newWorld(t, w.media, w.store, c)
	w.store.set(func() { w.store.fenced["demo"] = 2 })
	r2 := w2.start(placement("demo", 2, time.Now().Add(-time.Minute)), 1)
	r2.inits(all...)
	r2.segment(1, all...)
	w2.eventually("/live/demo/180p/index.m3u8", 200, has("e1r1", "e2r1"))

	w = w.again()
	bad := func() {
		for i := range 20 {
			w.codes(map[string]int{"master.m3u8": 404, "seg/e2r1/180p/1.m4s": 404, fmt.Sprintf("seg/e1r%d/180p/1.m4s", i+2): 404,
				"seg/e01r1/180p/1.m4s": 404, "seg/": 404, "seg/e1": 404})
			if code, _ := w.get("/live/other/seg/e1r1/180p/1.m4s"); code != 404 {
				t.Errorf("another stream: %d", code)
			}
		}
	}
	if n := w.loaded(bad); n != 0 {
		t.Errorf("%d loads for nothing", n)
	}
	w.store.set(func() { w.store.away = true })
	w.codes(map[string]int{"seg/e1r1/180p/1.m4s": 404})
	w.store.set(func() { w.store.away = false })
	if n := w.loaded(func() { w.codes(map[string]int{"seg/e1r1/180p/1.m4s": 404, "seg/e1r1/180p/2.m4s": 404}) }); n != 0 {
		t.Errorf("%d loads right after a failure", n)
	}
	c.Add(2 * retryStore)
	n := w.loaded(func() {
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				path := fmt.Sprintf("/live/demo/seg/e1r1/%s/%d.m4s", all[i%3], i%2+1)
				if code, body := w.get(path); code != 200 || body != string(w.media.read(t, fmt.Sprintf("%s_%d.m4s", all[i%3], i%2+1))) {
					t.Errorf("%s: %d, %d bytes", path, code, len(body))
				}
			})
		}
		wg.Wait()
		w.codes(map[string]int{"seg/e1r1/180p/init.mp4": 200, "seg/e1r1/180p/3.m4s": 404, "seg/e1r1/180p/99.m4s": 404})
		bad()
	})
	if n != 1 {
		t.Errorf("%d loads of one tail", n)
	}
	w.origin.Fence("demo", 2) // changes nothing: it runs nothing
	w.codes(map[string]int{"master.m3u8": 404, "seg/e1r1/180p/1.m4s": 200})
	c.Add(stream.MaxWindow + w.origin.cfg.Linger + time.Second)
	testkit.Eventually(t, wait, "all to leave", func() error {
		if w.origin.lookup("demo") != nil {
			return errors.New("the stream is still known")
		}
		return removed(r.dir)
	})
}

// A request that looked for a segment just before another one claimed it finds it all
// the same.
func TestClaimedBetweenTwoLooks(t *testing.T) {
	w, _ := killed(t, 2, nil)
	w = w.again()
	w.codes(map[string]int{"seg/e1r1/180p/1.m4s": 200})
	for key, want := range map[string]bool{"e1r1/180p/2.m4s": true, "e1r1/180p/3.m4s": false, "e1r2/180p/2.m4s": false} {
		if _, ok := w.origin.findPast(w.origin.lookup("demo"), key); ok != want {
			t.Errorf("%s: found %t", key, ok)
		}
	}
}

// The stream comes back here after its former runs were asked for.
func TestAskedForAndThenContinued(t *testing.T) {
	c := &clock{at: time.Now()}
	w, _ := killed(t, 2, c)
	w = w.again()
	w.codes(map[string]int{"seg/e1r1/180p/1.m4s": 200})
	w.store.set(func() { w.store.fenced["demo"] = 2 })
	r2 := w.start(placement("demo", 2, time.Now().Add(-time.Minute)), 1)
	w.codes(map[string]int{"seg/e1r1/180p/1.m4s": 200})
	r2.inits(all...)
	r2.segment(1, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("e1r1", "e2r1"))
	c.Add(stream.MaxWindow + 2*time.Minute)
	w.origin.sweep(w.origin.lookup("demo"))
	w.codes(map[string]int{"seg/e1r1/180p/1.m4s": 200})
	w.origin.Fence("demo", 3)
	w.eventually("/live/demo/180p/index.m3u8", http.StatusGone, nil)
	<-r2.Done()
	w.codes(map[string]int{"seg/e1r1/180p/1.m4s": 200})
	c.Add(31 * time.Second)
	w.eventually("/live/demo/seg/e1r1/180p/1.m4s", 404, nil)
}

// The store has lost everything, so the epochs begin anew: a run replaces the
// former one of its name.
func TestARunReplacesTheFormerOneOfItsName(t *testing.T) {
	for _, asked := range []bool{false, true} {
		w, r := killed(t, 2, nil)
		w = w.again()
		if asked {
			w.codes(map[string]int{"seg/e1r1/180p/2.m4s": 200})
		}
		w.store.set(func() { w.store.tails = map[string]*stream.Tail{} })
		if err := os.RemoveAll(r.dir); err != nil {
			t.Fatal(err)
		}
		r = w.start(placement("demo", 1, time.Now()), 1)
		w.codes(map[string]int{"seg/e1r1/180p/2.m4s": 404, "seg/e1r1/180p/init.mp4": 404})
		r.inits(all...)
		r.segment(1, all...)
		w.eventually("/live/demo/180p/index.m3u8", 200, has("e1r1/180p/1.m4s"))
		w.codes(map[string]int{"seg/e1r1/180p/1.m4s": 200, "seg/e1r1/180p/2.m4s": 404})
	}
}

// What no playlist can name any more is removed at the start, and the rest in
// time though nobody claims it.
func TestLeftoversAreRemoved(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	c := &clock{at: time.Now()}
	keep := stream.MaxWindow + time.Minute
	lay := func(name string, age time.Duration, bytes int) string {
		d := filepath.Join(dir, "demo", name)
		f := filepath.Join(d, "x_1.m4s")
		if err := errors.Join(os.MkdirAll(d, 0o755), os.WriteFile(f, []byte(strings.Repeat("x", bytes)), 0o644),
			os.Chtimes(f, c.Now().Add(-age), c.Now().Add(-age))); err != nil {
			t.Fatal(err)
		}
		return d
	}
	old, young, future := lay("e1r1", keep+time.Second, 10), lay("e1r2", keep-10*time.Second, 100), lay("e2r1", -time.Hour, 1000)
	extra, odd := lay("extra", 2*keep, 1), lay("e01r1", 2*keep, 1)
	link := filepath.Join(dir, "demo", "e3r1")
	kept := filepath.Join(elsewhere, "kept")
	if err := errors.Join(os.WriteFile(kept, nil, 0o644), os.Symlink(elsewhere, link)); err != nil {
		t.Fatal(err)
	}
	store := newFakeStore()
	o, err := New(Config{Dir: dir, Store: store, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	gone := func(paths ...string) {
		t.Helper()
		for _, p := range paths {
			if err := removed(p); err != nil {
				t.Error(err)
			}
		}
	}
	gone(old, link)
	if n := o.sweep(o.lookup("demo")); n != 1100 {
		t.Errorf("%d bytes accounted for", n)
	}
	c.Add(11 * time.Second)
	if n := o.sweep(o.lookup("demo")); n != 1000 {
		t.Errorf("%d bytes accounted for", n)
	}
	gone(young)
	c.Add(keep)
	o.sweep(o.lookup("demo"))
	gone(future)
	if o.lookup("demo") != nil || store.loads != 0 {
		t.Errorf("still known, or the store was asked %d times", store.loads)
	}
	for _, p := range []string{extra, odd, kept} {
		if _, err := os.Stat(p); err != nil {
			t.Errorf("something else was removed: %v", err)
		}
	}
}
