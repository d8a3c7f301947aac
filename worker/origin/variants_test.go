package origin

import (
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// A broadcast that starts without its top rung for want of room has its variant
// all the same: it lists the rung below, and comes alive at the same URL when a
// later placement makes it.
func TestADroppedRungComesAlive(t *testing.T) {
	m := makeMedia(t, 4)
	full := m.ladder.Video
	low := m
	low.ladder.Video = m.ladder.Video[1:]
	store := newFakeStore()
	w := newWorld(t, low, store, nil)
	begin := time.Now()
	r := w.startFull(placement("demo", 1, begin), 1, full)
	r.inits("90p", "aac")
	r.segment(1, "90p", "aac")
	w.eventually("/live/demo/180p/index.m3u8", 200, has("e1r1/90p/1.m4s"))
	_, master := w.get("/live/demo/master.m3u8")
	if !has("180p/index.m3u8", "90p/index.m3u8")(master) || strings.Contains(master, "RESOLUTION=320x180") ||
		strings.Index(master, "180p/index.m3u8") > strings.Index(master, "90p/index.m3u8") {
		t.Errorf("without room:\n%s", master)
	}
	if _, mpd := w.get("/live/demo/manifest.mpd"); strings.Contains(mpd, `id="180p"`) {
		t.Errorf("the MPD offers what is not made:\n%s", mpd)
	}
	r.Stopped()
	<-r.Done()

	// With room, on another worker.
	next := newWorld(t, m, store, nil)
	store.set(func() { store.fenced["demo"] = 2 })
	r = next.start(placement("demo", 2, begin), 1)
	r.inits(all...)
	r.segment(1, all...)
	body := next.eventually("/live/demo/180p/index.m3u8", 200, has("e2r1/180p/1.m4s"))
	if !has("e1r1/90p/1.m4s", "#EXT-X-DISCONTINUITY\n", "../seg/e2r1/180p/init.mp4")(body) {
		t.Errorf("come alive:\n%s", body)
	}
	if _, master = next.get("/live/demo/master.m3u8"); !has("RESOLUTION=320x180", "RESOLUTION=160x90")(master) {
		t.Errorf("with room:\n%s", master)
	}
}

func TestVariants(t *testing.T) {
	video := func(name, codec string) stream.Track {
		return stream.Track{Name: name, Kind: stream.Video, Codec: codec, Timescale: 1000, FPS: stream.Rate{Num: 25, Den: 1}}
	}
	out := func(names ...string) (l []stream.OutVideo) {
		for _, n := range names {
			l = append(l, stream.OutVideo{Name: n, Codec: "h264", Width: 64, Height: 36})
		}
		return l
	}
	sound := stream.Track{Name: "aac", Kind: stream.Audio, Codec: "mp4a.40.2", Timescale: 1000}
	a, b := video("a", "avc1.64001f"), video("b", "hvc1.1.6.L93.B0")
	for name, c := range map[string]struct {
		tracks []stream.Track
		full   []stream.OutVideo
		want   string
	}{
		"nothing was left out":     {[]stream.Track{a, b, sound}, nil, "a b aac"},
		"the top was":              {[]stream.Track{a, sound}, out("top", "a"), "top a aac"},
		"listed lowest first":      {[]stream.Track{a, sound}, out("a", "top"), "a top aac"},
		"made though not in full":  {[]stream.Track{a, b, sound}, out("top", "b"), "top b a aac"},
		"audio alone":              {[]stream.Track{sound}, out("top"), "aac"},
		"a rung named as a sound":  {[]stream.Track{a, sound}, out("aac", "a"), "a aac"},
		"the rate of what is made": {[]stream.Track{b}, out("top"), "top b"},
	} {
		got := variants(c.tracks, c.full)
		names := make([]string, len(got))
		for i, v := range got {
			names[i] = v.Name
			if v.Kind == stream.Video && (v.FPS.Float() != 25 || v.Codec == "" || v.Timescale == 0) {
				t.Errorf("%s: %+v", name, v)
			}
		}
		if strings.Join(names, " ") != c.want {
			t.Errorf("%s: %v, want %s", name, names, c.want)
		}
	}
}
