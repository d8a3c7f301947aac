package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// Every protocol, codec, rate and shape that may come in, one after the other
// on one instance; each is judged by what comes out.
func TestProtocols(t *testing.T) {
	realTime(t)
	d := kit.StartDev(t, kit.DevOptions{})
	cases := []struct {
		id    string
		proto string
		pic   kit.Picture
		sizes [][2]int
		audio int
	}{
		{"rtmp-bframes-60", "rtmp", kit.Picture{BFrames: 2, Rate: "60"}, [][2]int{{640, 360}, {320, 180}}, 1},
		{"rtmp-silent-24", "rtmp", kit.Picture{Audio: "none", Rate: "24"}, [][2]int{{640, 360}, {320, 180}}, -1},
		{"rtmp-vertical", "rtmp", kit.Picture{Width: 360, Height: 640, Rate: "30"}, [][2]int{{360, 640}, {180, 320}}, 1},
		{"rtmp-4x3-small", "rtmp", kit.Picture{Width: 320, Height: 240, Rate: "25"}, [][2]int{{240, 180}}, 1},
		{"rtsp-opus-2997", "rtsp", kit.Picture{Audio: "opus", Rate: "30000/1001"}, [][2]int{{640, 360}, {320, 180}}, 1},
		{"rtsp-h265", "rtsp", kit.Picture{Codec: "h265", Width: 480, Height: 270, Audio: "none"}, [][2]int{{320, 180}}, -1},
		{"srt-bframes", "srt", kit.Picture{BFrames: 3}, [][2]int{{640, 360}, {320, 180}}, 1},
		{"srt-h265", "srt", kit.Picture{Codec: "h265", Width: 640, Height: 360}, [][2]int{{640, 360}, {320, 180}}, 1},
	}
	for _, c := range cases {
		t.Run(c.id, func(t *testing.T) {
			key := newStream(t, d, kit.StreamSpec{ID: c.id, Grace: 1})
			target := map[string]func(string, string) []string{"rtmp": d.RTMPTarget, "rtsp": d.RTSPTarget, "srt": d.SRTTarget}[c.proto]
			pub := kit.Publish(t, c.pic, target(c.id, key))
			w := kit.WatchHLS(t, d.Master(c.id), goesLive)
			w.WaitSegments(t, 5, goesLive)
			w.Close()
			w.ExpectClean(t)
			w.ExpectRuns(t, kit.Expect{Sizes: c.sizes, FPS: c.pic.FPS(), Audio: c.audio})
			if s, err := d.Status(c.id); err != nil || s.Session == nil || s.Session.Protocol != c.proto {
				t.Errorf("status: %+v, %v", s, err)
			}
			finish(t, d, c.id, pub)
		})
	}
	t.Run("whip", func(t *testing.T) { whip(t, d) })
	t.Run("size change", func(t *testing.T) { sizeChange(t, d) })
	t.Run("no codec for it", func(t *testing.T) { unsupported(t, d) })
	t.Run("silent publisher", func(t *testing.T) { testTakeover(t, d) })
}

// finish stops the publisher and waits until nothing of the stream runs.
func finish(t *testing.T, d *kit.Dev, id string, pub *kit.Proc) {
	t.Helper()
	if pub != nil {
		pub.Kill()
	}
	noGPAC(t, d, aWhile)
	if err := d.DeleteStream(id); err != nil {
		t.Errorf("%v", err)
	}
}

// whip publishes Chromium's fake camera and microphone.
func whip(t *testing.T, d *kit.Dev) {
	key := newStream(t, d, kit.StreamSpec{ID: "camera", Grace: 1})
	s := kit.StartPlayers(t)
	bad := s.Open(t, "whip.html", d.WHIP+"/camera/whip", "key", "not-the-key-not-the-key")
	kit.Eventually(t, aWhile, "the wrong key being refused", func() error {
		r, err := bad.Report()
		if err == nil && (r.Status < 400 || r.Status > 403) { // mediamtx says 400
			err = fmt.Errorf("WHIP answered %d; %+v", r.Status, r.Fatal)
		}
		return err
	})
	bad.Close(t)
	cam := s.Open(t, "whip.html", d.WHIP+"/camera/whip", "key", key)
	cam.WaitStarted(t, aWhile)
	w := kit.WatchHLS(t, d.Master("camera"), goesLive)
	w.WaitSegments(t, 6, goesLive)
	play := s.Open(t, "hls.html", d.Master("camera"))
	play.WaitStarted(t, aWhile)
	r := play.Play(t, 10*time.Second)
	t.Logf("%s", r)
	if len(r.Fatal) > 0 || r.Colours < 2 {
		t.Errorf("%s: %+v", r.Player, r)
	}
	w.Close()
	w.ExpectClean(t)
	// A camera's frames come when they come, and their size follows the
	// bandwidth that WebRTC finds: only what is there at all is checked.
	w.ExpectPresent(t, 1, 1)
	cam.Close(t)
	finish(t, d, "camera", nil)
}

// sizeChange sends a picture whose size changes without the publisher leaving.
func sizeChange(t *testing.T, d *kit.Dev) {
	key := newStream(t, d, kit.StreamSpec{ID: "resized", Grace: 1})
	dir := t.TempDir()
	for name, p := range map[string]kit.Picture{"a": {Width: 640, Height: 360}, "b": {Width: 480, Height: 360}} {
		args := append(p.Args(), "-t", "16", "-f", "mpegts", filepath.Join(dir, name+".ts"))
		args = without(args, "-re")
		if out, err := exec.Command(kit.FFmpeg(t), args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	argv := append([]string{kit.FFmpeg(t), "-hide_banner", "-loglevel", "warning", "-nostdin", "-re",
		"-i", "concat:" + filepath.Join(dir, "a.ts") + "|" + filepath.Join(dir, "b.ts"), "-c", "copy"}, d.SRTTarget("resized", key)...)
	pub := kit.Start(t, "publisher", argv)
	w := kit.WatchHLS(t, d.Master("resized"), goesLive)
	kit.Eventually(t, goesLive, "the run after the change", func() error {
		if disc := w.Discontinuities(); len(disc) == 0 || w.Newest() < disc[0]+1 {
			return fmt.Errorf("discontinuities %v, newest %d", disc, w.Newest())
		}
		return nil
	})
	w.Close()
	w.ExpectClean(t)
	want := map[[2]int]bool{{640, 360}: false, {480, 360}: false}
	for _, p := range w.ProbeRuns(t) {
		want[[2]int{p.Width, p.Height}] = true
	}
	for size, seen := range want {
		if !seen {
			t.Errorf("no rendition of %v was made", size)
		}
	}
	finish(t, d, "resized", pub)
}

// unsupported sends what GPAC is not asked to transcode: it is refused with a
// reason, not passed over in silence.
func unsupported(t *testing.T, d *kit.Dev) {
	key := newStream(t, d, kit.StreamSpec{ID: "old", Grace: 1})
	pub := kit.Publish(t, kit.Picture{Codec: "mpeg2", Audio: "none"}, d.SRTTarget("old", key))
	kit.Eventually(t, goesLive, "a reason", func() error {
		s, err := d.Status("old")
		if err == nil && (s.State != "failing" || s.LastError == "") {
			err = fmt.Errorf("state %s, last error %q", s.State, s.LastError)
		}
		return err
	})
	if s, err := d.Status("old"); err == nil && !strings.Contains(strings.ToLower(s.LastError), "mpeg") {
		t.Errorf("the reason does not name the codec: %q", s.LastError)
	}
	if a := fetch(t, d.Master("old")); a.Status != http.StatusServiceUnavailable {
		t.Errorf("its playlist: %d", a.Status)
	}
	finish(t, d, "old", pub)
}

func without(args []string, what string) []string {
	var out []string
	for _, a := range args {
		if a != what {
			out = append(out, a)
		}
	}
	return out
}
