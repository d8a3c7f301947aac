package origin

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// A real GPAC pulls a live RTMP source: its segments are listed while it runs,
// with the media's own figures, and what it flushed at the source's end is there.
func TestWithGPAC(t *testing.T) {
	ffmpeg := testkit.Part(t, "DIONYSIA_FFMPEG", "ffmpeg")
	bin := testkit.Part(t, "DIONYSIA_GPAC", "gpac")
	version, err := gpac.Detect(t.Context(), bin)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, makeMedia(t, 2), newFakeStore(), nil)
	port := testkit.FreePort(t)
	url := fmt.Sprintf("rtmp://127.0.0.1:%d/live/x", port)
	testkit.StartProcess(t, "publisher", exec.Command(ffmpeg, "-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=30000/1001",
		"-f", "lavfi", "-i", "sine=440:sample_rate=48000", "-t", "12", "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency",
		"-pix_fmt", "yuv420p", "-g", "60", "-c:a", "aac", "-ac", "2", "-f", "flv", "-listen", "1", url))

	ladder := w.media.ladder
	ladder.Segment = 2.002
	for i := range ladder.Video {
		ladder.Video[i].Preset, ladder.Video[i].FrameStep = "ultrafast", 1
	}
	cmd, err := gpac.Build(gpac.Spec{Version: version, Source: url, Ladder: ladder, Keep: 5 * time.Minute,
		Media: stream.SourceMedia{
			Video: &stream.SourceVideo{Codec: "h264", Width: 320, Height: 180, FPS: ladder.Video[0].FPS},
			Audio: &stream.SourceAudio{Codec: "aac", SampleRate: 48000, Channels: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(w.origin.cfg.Dir, "demo", "e1r1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range cmd.Files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.media.ladder = ladder
	r := w.start(placement("demo", 1, time.Now()), 1)
	proc := exec.Command(bin, cmd.Args...)
	proc.Dir, proc.Env = dir, append(cmd.Env, "HOME="+dir)
	testkit.Eventually(t, wait, "the publisher", testkit.Listening(port))
	gpacProcess := testkit.StartProcess(t, "gpac", proc)

	body := w.eventually("/live/demo/180p/index.m3u8", 200, has("/2.m4s"))
	if !has("#EXT-X-MEDIA-SEQUENCE:1\n", "#EXTINF:2.00", "e1r1/180p/1.m4s")(body) {
		t.Errorf("playlist:\n%s", body)
	}
	if _, master := w.get("/live/demo/master.m3u8"); !has("FRAME-RATE=29.970", "RESOLUTION=320x180", "RESOLUTION=160x90")(master) {
		t.Errorf("master:\n%s", master)
	}
	select {
	case <-gpacProcess.Done():
	case <-time.After(wait):
		t.Fatal("GPAC did not end with its source")
	}
	r.Stopped()
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait)
	defer cancel()
	if err := w.origin.End(ctx, "demo", 1); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(w.origin)
	defer srv.Close()
	out, err := exec.CommandContext(ctx, testkit.Part(t, "DIONYSIA_FFPROBE", "ffprobe"), "-v", "error", "-of", "csv=p=0", "-select_streams", "v:0",
		"-show_entries", "packet=pts_time", srv.URL+"/live/demo/180p/index.m3u8").CombinedOutput()
	if err != nil {
		t.Fatalf("ffprobe: %v\n%s", err, out)
	}
	// GPAC begins at a keyframe, so at most the first GOP is missing.
	if n := strings.Count(string(out), "\n"); n < 300-61 {
		t.Errorf("%d frames of about 300\n%s", n, body)
	}
	for _, name := range []string{"180p/index.m3u8", "aac/index.m3u8", "manifest.mpd"} {
		_, b := w.get("/live/demo/" + name)
		t.Logf("%s\n%s", name, b)
	}
}
