package router

import (
	"testing"

	"github.com/dionysia-dev/dionysia/services/stream"
	"pgregory.net/rapid"
)

const media = `#EXTM3U
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:41
#EXT-X-MAP:URI="../seg/e2r1/720p/init.mp4"
#EXTINF:2.000,
../seg/e2r1/720p/9.m4s
#EXT-X-DISCONTINUITY
#EXT-X-MAP:URI="../seg/e3r1/720p/init.mp4"
#EXTINF:2.000,
../seg/e3r1/720p/1.m4s
`

func TestVersionOf(t *testing.T) {
	run := func(e uint64, r uint32) stream.RunID { return stream.RunID{Epoch: e, Run: r} }
	cases := []struct {
		name, header, body string
		want               version
	}{
		{"header", "3.2.117", media, version{number: 117, run: run(3, 2)}},
		{"no header", "", media, version{number: 42, run: run(3, 1)}},
		{"garbled header", "3.x.117", media, version{number: 42, run: run(3, 1)}},
		{"header of two", "3.117", media, version{number: 42, run: run(3, 1)}},
		{"master", "", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n720p/index.m3u8\n", version{}},
		{"empty", "", "#EXTM3U\n", version{}},
		{"nothing", "", "", version{}},
	}
	for _, c := range cases {
		if got := versionOf(c.header, []byte(c.body)); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	mpd := versionOf("", []byte(`<MPD type="dynamic" publishTime="2026-11-23T10:00:00.5Z">`))
	later := versionOf("", []byte(`<MPD type="dynamic" publishTime="2026-11-23T10:00:01Z">`))
	if !mpd.older(later) || later.older(mpd) || mpd.older(mpd) {
		t.Errorf("publish times: %v, %v", mpd, later)
	}
}

func TestVersionOrderProperty(t *testing.T) {
	draw := rapid.Custom(func(t *rapid.T) version {
		return version{number: rapid.Uint64Range(1, 4).Draw(t, "n"),
			run: stream.RunID{Epoch: rapid.Uint64Range(0, 3).Draw(t, "e"), Run: rapid.Uint32Range(0, 3).Draw(t, "r")}}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := draw.Draw(t, "a"), draw.Draw(t, "b"), draw.Draw(t, "c")
		if a.older(b) && b.older(a) {
			t.Fatalf("%v and %v are each older", a, b)
		}
		if a.older(b) && b.older(c) && !a.older(c) {
			t.Fatalf("not transitive: %v %v %v", a, b, c)
		}
		if a.number < b.number && !a.older(b) {
			t.Fatalf("%v would be served after %v", a, b)
		}
	})
}

func TestEndedAndWhole(t *testing.T) {
	for body, want := range map[string]bool{media: false, media + "#EXT-X-ENDLIST\n": true} {
		if isEnded(kindHLS, []byte(body)) != want {
			t.Errorf("ended %v of %q", !want, body)
		}
	}
	if isEnded(kindDASH, []byte(`<MPD type="dynamic">`)) || !isEnded(kindDASH, []byte(`<MPD type="static">`)) {
		t.Error("mpd type")
	}
	for body, want := range map[string]bool{"": false, "<html>": false, "#EXTM3U\n": true} {
		if isManifest(kindHLS, []byte(body)) != want {
			t.Errorf("hls %q", body)
		}
	}
	if isManifest(kindDASH, []byte("<MPD><Period>")) || !isManifest(kindDASH, []byte("<MPD></MPD>")) {
		t.Error("torn mpd")
	}
}

func TestPlaylistURIs(t *testing.T) {
	got := playlistURIs("/live/s/720p/index.m3u8", []byte(media))
	want := []string{
		"/live/s/seg/e2r1/720p/init.mp4", "/live/s/seg/e2r1/720p/9.m4s",
		"/live/s/seg/e3r1/720p/init.mp4", "/live/s/seg/e3r1/720p/1.m4s",
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%d: %s, want %s", i, got[i], want[i])
		}
	}
	for _, evil := range []string{"http://evil/live/s/seg/e1r1/a/1.m4s", "//evil/x", "../../../../etc/passwd"} {
		for _, path := range playlistURIs("/live/s/720p/index.m3u8", []byte("#EXTM3U\n"+evil+"\n")) {
			if _, err := parsePath(path); err == nil {
				t.Errorf("%s became %s", evil, path)
			}
		}
	}
}
