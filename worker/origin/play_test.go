package origin

import (
	"encoding/json"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"context"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// ffmpeg plays the composed HLS and DASH over two runs, and ffprobe sees every
// frame of both with continuous timestamps.
func TestFFmpegPlaysAcrossRuns(t *testing.T) {
	w := newWorld(t, makeMedia(t, 6), newFakeStore(), nil)
	p := placement("demo", 1, time.Now())
	for n := uint32(1); n <= 2; n++ {
		r := w.start(p, n)
		r.inits(all...)
		for i := 1; i <= 2; i++ {
			r.segment(i, all...)
		}
		r.Stopped()
		<-r.Done()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*wait)
	defer cancel()
	if err := w.origin.End(ctx, "demo", 1); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(w.origin)
	defer srv.Close()
	ffprobe := testkit.Part(t, "DIONYSIA_FFPROBE", "ffprobe")
	ffmpeg := testkit.Part(t, "DIONYSIA_FFMPEG", "ffmpeg")

	out, err := exec.CommandContext(ctx, ffprobe, "-v", "error", "-of", "json", "-show_streams", "-show_programs",
		srv.URL+"/live/demo/master.m3u8").Output()
	if err != nil {
		t.Fatalf("ffprobe of the master: %v", err)
	}
	var probed struct {
		Programs []struct{ Tags map[string]string }
		Streams  []struct {
			Codec_type, R_frame_rate string
			Width, Height            int
		}
	}
	if err := json.Unmarshal(out, &probed); err != nil {
		t.Fatal(err)
	}
	sizes := map[[2]int]bool{}
	for _, s := range probed.Streams {
		if s.Codec_type == "video" {
			sizes[[2]int{s.Width, s.Height}] = true
			if s.R_frame_rate != "30000/1001" {
				t.Errorf("frame rate %s", s.R_frame_rate)
			}
		}
	}
	if !sizes[[2]int{320, 180}] || !sizes[[2]int{160, 90}] || len(probed.Programs) != 2 {
		t.Errorf("ffprobe sees %s", out)
	}

	for name, want := range map[string]int{"180p/index.m3u8": 240, "90p/index.m3u8": 240, "manifest.mpd": 240} {
		out, err := exec.CommandContext(ctx, ffprobe, "-v", "error", "-of", "csv=p=0", "-select_streams", "v:0",
			"-show_entries", "packet=pts_time", srv.URL+"/live/demo/"+name).CombinedOutput()
		if err != nil {
			t.Fatalf("ffprobe of %s: %v\n%s", name, err, out)
		}
		var frames int
		for line := range strings.Lines(string(out)) {
			if _, err := strconv.ParseFloat(strings.Trim(line, ",\n "), 64); err != nil {
				t.Fatalf("%s: ffprobe says %q", name, line)
			}
			frames++
		}
		// ffmpeg's DASH reader reads the first Period only.
		if name == "manifest.mpd" {
			want = 120
		}
		if frames < want {
			t.Errorf("%s: %d frames, want %d", name, frames, want)
		}
	}
	if out, err := exec.CommandContext(ctx, ffmpeg, "-v", "error", "-xerror", "-i", srv.URL+"/live/demo/master.m3u8",
		"-map", "0:v:0", "-map", "0:a:0", "-f", "null", "-").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("ffmpeg plays HLS: %v\n%s", err, out)
	}
}
