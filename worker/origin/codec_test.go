package origin

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Renditions of every codec, as real encoders write them, are listed with their
// codec strings. Those of H.265 are what GPAC 1.0.1's own MPD says of the same
// encode, that of AV1 is what ffmpeg's says.
func TestEveryCodecIsListed(t *testing.T) {
	dir := t.TempDir()
	args := []string{"-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=30"}
	m := media{dir: dir, n: 1, ladder: stream.Ladder{Segment: 2}}
	for _, v := range []struct {
		name, codec string
		encoder     []string
	}{
		{"hvc1", "hevc", []string{"libx265", "-tag:v", "hvc1", "-x265-params", "log-level=error:keyint=60:min-keyint=60"}},
		{"hev1", "hevc", []string{"libx265", "-tag:v", "hev1", "-x265-params", "log-level=error:keyint=60:min-keyint=60"}},
		{"av01", "av1", []string{"libsvtav1", "-preset", "12", "-g", "60"}},
		{"avc1", "h264", []string{"libx264", "-preset", "ultrafast", "-g", "60"}},
	} {
		args = append(args, "-map", "0:v", "-t", "2", "-pix_fmt", "yuv420p", "-c:v")
		args = append(args, v.encoder...)
		args = append(args, "-f", "hls", "-hls_time", "2", "-hls_segment_type", "fmp4", "-start_number", "1",
			"-hls_fmp4_init_filename", v.name+"_init.mp4", "-hls_segment_filename", filepath.Join(dir, v.name+"_%d.m4s"),
			filepath.Join(dir, v.name+".m3u8"))
		m.ladder.Video = append(m.ladder.Video, stream.OutVideo{Name: v.name, Codec: v.codec, Width: 320, Height: 180,
			FPS: stream.Rate{Num: 30, Den: 1}, GOP: 60, Bitrate: 100_000})
	}
	if out, err := exec.Command(testkit.Part(t, "DIONYSIA_FFMPEG", "ffmpeg"), args...).CombinedOutput(); err != nil {
		t.Fatalf("making media: %v\n%s", err, out)
	}
	w := newWorld(t, m, newFakeStore(), nil)
	r := w.start(placement("demo", 1, time.Now()), 1)
	names := []string{"hvc1", "hev1", "av01", "avc1"}
	r.inits(names...)
	r.segment(1, names...)
	master := w.eventually("/live/demo/master.m3u8", 200, nil)
	_, mpd := w.get("/live/demo/manifest.mpd")
	for _, codec := range []string{"hvc1.1.6.L60.90", "hev1.1.6.L60.90", "av01.0.00M.08", "avc1.42c00d"} {
		line := fmt.Sprintf("CODECS=%q,RESOLUTION=320x180,FRAME-RATE=30.000", codec)
		if strings.Count(master, line) != 1 || strings.Count(mpd, fmt.Sprintf("codecs=%q", codec)) != 1 {
			t.Errorf("%s is not once in both", codec)
		}
	}
	// Players switch within a set: one for each codec.
	if n := strings.Count(mpd, "<AdaptationSet "); n != 3 {
		t.Errorf("%d adaptation sets", n)
	}
	for _, p := range r.Progress() {
		if p.FPS < 29.9 || p.FPS > 30.1 || p.Bitrate < 1000 || p.Segments != 1 {
			t.Errorf("measured %+v", p)
		}
	}
	if t.Failed() {
		t.Logf("%s\n%s", master, mpd)
	}
}
