package origin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

func has(parts ...string) func(string) bool {
	return func(body string) bool {
		for _, p := range parts {
			if !strings.Contains(body, p) {
				return false
			}
		}
		return true
	}
}

func TestListsANumberOnlyWhenEveryRenditionHasIt(t *testing.T) {
	w := newWorld(t, makeMedia(t, 6), newFakeStore(), nil)
	if code, _ := w.get("/live/demo/master.m3u8"); code != http.StatusNotFound {
		t.Errorf("unknown stream: %d", code)
	}
	r := w.start(placement("demo", 1, time.Now()), 1)
	if res := w.do("GET", "/live/demo/master.m3u8"); res.code != http.StatusServiceUnavailable || res.header.Get("Retry-After") == "" {
		t.Errorf("before the first segment: %d %v", res.code, res.header)
	}
	r.inits(all...)
	r.segment(1, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("#EXT-X-MEDIA-SEQUENCE:1\n", "../seg/e1r1/180p/1.m4s"))
	r.segment(2, "180p", "90p") // audio lacks it
	r.segment(3, all...)
	testkit.Eventually(t, wait, "the files to be seen", func() error {
		for _, p := range r.Progress() {
			if p.Name != "aac" && p.Segments != 3 {
				return fmt.Errorf("%+v", p)
			}
		}
		return nil
	})
	if _, body := w.get("/live/demo/180p/index.m3u8"); strings.Contains(body, "2.m4s") || strings.Contains(body, "3.m4s") {
		t.Errorf("listed without audio:\n%s", body)
	}
	if code, _ := w.get("/live/demo/seg/e1r1/180p/2.m4s"); code != http.StatusNotFound {
		t.Errorf("an unlisted segment answers %d", code)
	}
	r.segment(2, "aac")
	body := w.eventually("/live/demo/180p/index.m3u8", 200, has("2.m4s", "3.m4s"))
	for _, want := range []string{"#EXTINF:2.002", "#EXT-X-TARGETDURATION:3\n", "HOLD-BACK=12", "#EXT-X-INDEPENDENT-SEGMENTS", "#EXT-X-PROGRAM-DATE-TIME:"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	if _, master := w.get("/live/demo/master.m3u8"); !has("FRAME-RATE=29.970", "RESOLUTION=320x180", `AUDIO="audio"`, `CHANNELS="2"`, "mp4a.40.2")(master) {
		t.Errorf("master:\n%s", master)
	}
	if code, mpd := w.get("/live/demo/manifest.mpd"); code != 200 || !has(`frameRate="30000/1001"`, `type="dynamic"`, `id="e1r1"`)(mpd) {
		t.Errorf("MPD %d:\n%s", code, mpd)
	}
	p := r.Progress()[0]
	if p.Name != "180p" || p.FPS < 29.9 || p.FPS > 30 || p.Bitrate == 0 || p.LastSegmentAt.IsZero() {
		t.Errorf("progress %+v", p)
	}
}

// Whatever GPAC leaves there that is not a whole segment is never listed.
func TestTornFilesAreNeverListed(t *testing.T) {
	m := makeMedia(t, 4)
	good := m.read(t, "180p_1.m4s")
	foreign := m.read(t, "aac_1.m4s")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, good, 0o644); err != nil {
		t.Fatal(err)
	}
	moofless := append([]byte{0, 0, 0, 12, 'm', 'd', 'a', 't'}, 1, 2, 3, 4)
	tests := []struct {
		name  string
		write func(path string) error
	}{
		{"empty", bytesOf(nil)},
		{"cut in the header", bytesOf(good[:5])},
		{"cut in moof", bytesOf(good[:60])},
		{"cut in mdat", bytesOf(good[:len(good)-1])},
		{"half", bytesOf(good[:len(good)/2])},
		{"bytes after the end", bytesOf(append(append([]byte{}, good...), 0, 0, 0))},
		{"garbage", bytesOf([]byte(strings.Repeat("garbage ", 500)))},
		{"zeroes", bytesOf(make([]byte, len(good)))},
		{"no moof", bytesOf(moofless)},
		{"an init", bytesOf(m.read(t, "180p_init.mp4"))},
		{"a playlist", bytesOf([]byte("#EXTM3U\n#EXTINF:0,\n1.m4s\n"))},
		{"another track's", func(p string) error { return os.WriteFile(p, mismatched(foreign), 0o644) }},
		{"a link", func(p string) error { return os.Symlink(secret, p) }},
		{"a pipe", func(p string) error { return unix.Mkfifo(p, 0o644) }},
		{"a directory", func(p string) error { return os.Mkdir(p, 0o755) }},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, m, newFakeStore(), nil)
			r := w.start(placement("demo", 1, time.Now()), 1)
			r.inits(all...)
			path := filepath.Join(r.dir, "180p_1.m4s")
			if err := tc.write(path); err != nil {
				t.Fatal(err)
			}
			r.segment(1, "90p", "aac")
			r.segment(2, "90p", "aac")
			r.Stopped() // even then
			<-r.Done()
			if code, body := w.get("/live/demo/180p/index.m3u8"); code != http.StatusServiceUnavailable {
				t.Errorf("listed: %d\n%s", code, body)
			}
			if code, _ := w.get("/live/demo/seg/e1r1/180p/1.m4s"); code != http.StatusNotFound {
				t.Errorf("fetchable: %d", code)
			}
		})
	}
}

func bytesOf(b []byte) func(string) error {
	return func(path string) error { return os.WriteFile(path, b, 0o644) }
}

// mismatched changes the track id of a segment, which is in tfhd after its flags.
func mismatched(b []byte) []byte {
	b = append([]byte{}, b...)
	i := strings.Index(string(b), "tfhd")
	b[i+11] = 99
	return b
}

// A file that grows is listed once it is whole.
func TestUnfinishedFileIsListedWhenWhole(t *testing.T) {
	w := newWorld(t, makeMedia(t, 2), newFakeStore(), nil)
	r := w.start(placement("demo", 1, time.Now()), 1)
	r.inits(all...)
	r.segment(1, "90p", "aac")
	good := w.media.read(t, "180p_1.m4s")
	r.write("180p_1.m4s", good[:len(good)/3]) // closed, as a crash would
	r.write("180p_9.m4s", nil)                // the poll sees a newer one
	testkit.Eventually(t, wait, "a poll", func() error {
		if r.Bytes() == 0 {
			return errors.New("no poll yet")
		}
		return nil
	})
	if code, _ := w.get("/live/demo/master.m3u8"); code != http.StatusServiceUnavailable {
		t.Fatalf("listed while torn: %d", code)
	}
	r.write("180p_1.m4s", good)
	w.eventually("/live/demo/master.m3u8", 200, nil)
}

func TestSecondRunContinuesThePlaylist(t *testing.T) {
	w := newWorld(t, makeMedia(t, 4), newFakeStore(), nil)
	p := placement("demo", 1, time.Now())
	r1 := w.start(p, 1)
	r1.inits(all...)
	r1.segment(1, all...)
	r1.segment(2, all...)
	r1.Stopped()
	<-r1.Done()
	r2 := w.start(p, 2)
	r2.inits(all...)
	r2.segment(1, all...)
	body := w.eventually("/live/demo/90p/index.m3u8", 200, has("e1r2/90p/1.m4s"))
	want := "#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"../seg/e1r2/90p/init.mp4\"\n"
	if !has(want, "#EXT-X-MEDIA-SEQUENCE:1\n", "e1r1/90p/2.m4s")(body) || strings.Contains(body, "DISCONTINUITY-SEQUENCE") {
		t.Errorf("joined:\n%s", body)
	}
	if _, mpd := w.get("/live/demo/manifest.mpd"); strings.Count(mpd, "<Period ") != 2 {
		t.Errorf("MPD:\n%s", mpd)
	}
	for _, path := range []string{"e1r1/90p/init.mp4", "e1r2/90p/init.mp4", "e1r1/90p/2.m4s", "e1r2/aac/1.m4s"} {
		if code, _ := w.get("/live/demo/seg/" + path); code != 200 {
			t.Errorf("%s: %d", path, code)
		}
	}
}

func TestListsWhileTheStoreIsAwayAndCatchesUp(t *testing.T) {
	store := newFakeStore()
	w := newWorld(t, makeMedia(t, 6), store, nil)
	r := w.start(placement("demo", 1, time.Now()), 1)
	r.inits(all...)
	r.segment(1, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("/1.m4s"))
	store.set(func() { store.away = true })
	r.segment(2, all...)
	r.segment(3, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("/2.m4s", "/3.m4s"))
	store.set(func() { store.away = false })
	testkit.Eventually(t, wait, "the store to catch up", func() error {
		store.mu.Lock()
		defer store.mu.Unlock()
		if fmt.Sprint(store.appends) != "[1 2 3]" {
			return fmt.Errorf("appended %v", store.appends)
		}
		return nil
	})
}

func TestEndClosesThePlaylistsAndThenLeaves(t *testing.T) {
	c := &clock{at: time.Now()}
	w := newWorld(t, makeMedia(t, 4), newFakeStore(), c)
	r := w.start(placement("demo", 1, c.Now()), 1)
	r.inits(all...)
	r.segment(1, all...)
	r.segment(2, "90p", "180p")
	r.segment(2, "aac")
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if err := w.origin.End(ctx, "demo", 1); err != nil {
		t.Fatal(err)
	}
	_, body := w.get("/live/demo/180p/index.m3u8")
	if !has("/2.m4s", "#EXT-X-ENDLIST")(body) {
		t.Errorf("ended:\n%s", body)
	}
	if _, mpd := w.get("/live/demo/manifest.mpd"); !has(`type="static"`, "mediaPresentationDuration")(mpd) || strings.Contains(mpd, "minimumUpdatePeriod") {
		t.Errorf("ended MPD:\n%s", mpd)
	}
	if !w.store.tails["demo"].Ended {
		t.Error("the tail was not ended")
	}
	c.Add(time.Minute + 29*time.Second) // window 30 s + 60 s
	w.origin.sweep(w.origin.lookup("demo"))
	if code, _ := w.get("/live/demo/seg/e1r1/180p/1.m4s"); code != 200 {
		t.Errorf("gone too early: %d", code)
	}
	c.Add(2 * time.Second)
	w.eventually("/live/demo/180p/index.m3u8", http.StatusGone, nil)
	w.eventually("/live/demo/seg/e1r1/180p/1.m4s", http.StatusGone, nil)
	testkit.Eventually(t, wait, "the directory to go", func() error {
		if _, err := os.Stat(r.dir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("still there: %v", err)
		}
		return nil
	})
}

func TestWindowAndDeletion(t *testing.T) {
	c := &clock{at: time.Now()}
	m := makeMedia(t, 40)
	w := newWorld(t, m, newFakeStore(), c)
	r := w.start(placement("demo", 1, c.Now()), 1)
	r.inits(all...)
	for n := 1; n <= 20; n++ {
		r.segment(n, all...)
	}
	body := w.eventually("/live/demo/180p/index.m3u8", 200, has("/20.m4s"))
	if n := strings.Count(body, "#EXTINF"); n < 15 || n > 16 {
		t.Errorf("a window of 30 s lists %d segments:\n%s", n, body)
	}
	if code, _ := w.get("/live/demo/seg/e1r1/180p/1.m4s"); code != 200 {
		t.Errorf("just left the window: %d", code)
	}
	c.Add(31 * time.Second)
	w.eventually("/live/demo/seg/e1r1/180p/1.m4s", 404, nil)
	testkit.Eventually(t, wait, "the file to go", func() error { return removed(filepath.Join(r.dir, "180p_1.m4s")) })
	if code, _ := w.get("/live/demo/seg/e1r1/180p/20.m4s"); code != 200 {
		t.Errorf("a listed segment: %d", code)
	}
}
