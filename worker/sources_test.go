package worker

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// packet is one of ffprobe's, times in seconds.
type packet struct {
	pts, dts float64
	key      bool
}

// segments reads the first n segments of a rendition of run e1r1 from disk.
func (r *rig) segments(id, rendition string, n int) []packet {
	r.t.Helper()
	dir := filepath.Join(r.dir, "runs", id, "e1r1")
	all, err := os.ReadFile(filepath.Join(dir, rendition+"_init.mp4"))
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range n {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%s_%d.m4s", rendition, i+1)))
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, b...)
	}
	file := filepath.Join(r.t.TempDir(), "joined.mp4")
	if err := os.WriteFile(file, all, 0o600); err != nil {
		r.t.Fatal(err)
	}
	out, err := exec.Command(testkit.Part(r.t, "DIONYSIA_FFPROBE", "ffprobe"), "-v", "error", "-show_entries", "packet=pts_time,dts_time,flags",
		"-of", "json", file).Output()
	if err != nil {
		r.t.Fatal(err)
	}
	var doc struct {
		Packets []struct {
			PTS   string `json:"pts_time"`
			DTS   string `json:"dts_time"`
			Flags string `json:"flags"`
		} `json:"packets"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		r.t.Fatal(err)
	}
	var list []packet
	for _, p := range doc.Packets {
		pts, err1 := strconv.ParseFloat(p.PTS, 64)
		dts, err2 := strconv.ParseFloat(p.DTS, 64)
		if err1 != nil || err2 != nil {
			r.t.Fatalf("%s/%s: packet %+v", id, rendition, p)
		}
		list = append(list, packet{pts: pts, dts: dts, key: strings.Contains(p.Flags, "K")})
	}
	return list
}

// steady checks that packets follow each other by step seconds, each within the
// rounding of a millisecond clock, and that they do so on the whole.
func steady(t *testing.T, what string, list []packet, step float64) {
	t.Helper()
	if len(list) < 50 {
		t.Errorf("%s: only %d packets", what, len(list))
		return
	}
	for i := 1; i < len(list); i++ {
		if d := list[i].dts - list[i-1].dts; math.Abs(d-step) > 0.0025 {
			t.Errorf("%s: packet %d comes %.4f s after the one before, want %.4f", what, i, d, step)
			return
		}
	}
	if off := list[len(list)-1].dts - list[0].dts - float64(len(list)-1)*step; math.Abs(off) > 0.0025 {
		t.Errorf("%s: %d packets are %.4f s off", what, len(list), off)
	}
}

func keyTimes(list []packet) []float64 {
	var out []float64
	for _, p := range list {
		if p.key {
			out = append(out, p.pts)
		}
	}
	return out
}

// Every kind of source gives whole rungs: sizes, no frame dropped or doubled,
// keyframes at the same times.
func TestSources(t *testing.T) {
	x264 := []string{"-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-b:v", "600k"}
	src := func(size, rate, audio string, rest ...[]string) []string {
		args := []string{"-re", "-f", "lavfi", "-i", "testsrc2=size=" + size + ":rate=" + rate}
		if audio != "" {
			args = append(args, "-f", "lavfi", "-i", audio)
		}
		for _, r := range rest {
			args = append(args, r...)
		}
		return args
	}
	cases := []struct {
		name  string
		args  []string
		rungs map[string][2]int // sizes
		fps   float64
		audio float64 // seconds of a frame, 0 without
	}{
		{"ntsc-b-frames", src("640x360", "30000/1001", "sine=sample_rate=48000", x264, []string{"-bf", "2", "-g", "60", "-c:a", "aac", "-ac", "2"}),
			map[string][2]int{"high": {480, 270}, "low": {256, 144}}, 30000. / 1001, 1024. / 48000},
		{"vertical-mono-44k", src("360x640", "25", "sine=sample_rate=44100", x264, []string{"-g", "50", "-c:a", "aac", "-ac", "1"}),
			map[string][2]int{"high": {270, 480}, "low": {144, 256}}, 25, 1024. / 44100},
		{"four-thirds-silent", src("640x480", "24", "", x264, []string{"-g", "48"}),
			map[string][2]int{"high": {360, 270}, "low": {192, 144}}, 24, 0},
		{"opus", src("640x360", "30", "sine=sample_rate=48000", x264, []string{"-g", "30", "-bf", "0", "-c:a", "libopus", "-ac", "2", "-f", "rtsp"}),
			map[string][2]int{"high": {480, 270}, "low": {256, 144}}, 30, 1024. / 48000},
		{"h265", src("640x360", "25", "sine=sample_rate=48000", []string{"-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error",
			"-pix_fmt", "yuv420p", "-b:v", "600k", "-g", "25", "-bf", "0", "-c:a", "aac", "-ac", "2", "-f", "rtsp"}),
			map[string][2]int{"high": {480, 270}, "low": {256, 144}}, 25, 1024. / 48000},
		{"mp3", src("640x360", "25", "sine=sample_rate=44100", x264, []string{"-g", "50", "-c:a", "libmp3lame", "-ac", "2"}),
			map[string][2]int{"high": {480, 270}, "low": {256, 144}}, 25, 1024. / 44100},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t).start()
			r.publish(c.name, c.args...)
			r.place(c.name, r.w.Boot())
			const n = 4
			names := []string{"high", "low"}
			if c.audio > 0 {
				names = append(names, "aac")
			}
			for _, name := range names {
				r.waitSegments(c.name, name, n)
			}
			s := r.waitStatus(c.name, "a status", func(s stream.RunStatus) bool { return s.State == stream.RunRunning && s.Renditions[0].FPS > 0 })
			if len(s.Renditions) != len(names) || s.Restarts != 0 {
				t.Errorf("status %+v", s)
			}
			for _, v := range s.Renditions[:2] {
				if want := c.rungs[v.Name]; v.Width != want[0] || v.Height != want[1] {
					t.Errorf("%s is %d×%d, want %v", v.Name, v.Width, v.Height, want)
				}
			}
			high, low := r.segments(c.name, "high", n), r.segments(c.name, "low", n)
			steady(t, "high", high, 1/c.fps)
			steady(t, "low", low, 1/c.fps)
			if h, l := keyTimes(high), keyTimes(low); len(h) != n || fmt.Sprint(h) != fmt.Sprint(l) {
				t.Errorf("keyframes at %v and %v", h, l)
			}
			if c.audio > 0 {
				steady(t, "audio", r.segments(c.name, "aac", n), c.audio)
			}
		})
	}
}

// A rung that is capped takes every second frame, with keyframes where the
// others have them.
func TestCappedRung(t *testing.T) {
	r := newRig(t).start()
	r.publish("demo", picture("640x360", "60", true)...)
	r.place("demo", r.w.Boot(), func(p *stream.Placement) { p.Profile.Video[1].FPS = 30 })
	r.waitSegments("demo", "high", 4)
	high, low := r.segments("demo", "high", 4), r.segments("demo", "low", 4)
	if len(high) != 2*len(low) {
		t.Errorf("%d and %d frames", len(high), len(low))
	}
	steady(t, "high", high, 1./60)
	if h, l := keyTimes(high), keyTimes(low); fmt.Sprint(h) != fmt.Sprint(l) {
		t.Errorf("keyframes at %v and %v", h, l)
	}
	steady(t, "low", low, 1./30)
}

// Tracks that the profile does not make are left out, and nothing waits for them.
func TestProfileWithoutATrack(t *testing.T) {
	for name, change := range map[string]func(*stream.Profile){
		"video-only": func(p *stream.Profile) { p.Audio = nil },
		"audio-only": func(p *stream.Profile) { p.Video = nil },
	} {
		for _, by := range []string{"rtmp", "rtsp"} {
			t.Run(name+"-"+by, func(t *testing.T) {
				r := newRig(t).start()
				args := picture("640x360", "25", true)
				if by == "rtsp" {
					args = append(args, "-c:a", "libopus", "-f", "rtsp")
				}
				r.publish("demo", args...)
				epoch := r.place("demo", r.w.Boot(), func(p *stream.Placement) { change(&p.Profile) })
				rendition := "low"
				if name == "audio-only" {
					rendition = "aac"
				}
				r.waitSegments("demo", rendition, 4)
				if err := r.store.SetEnding(t.Context(), "demo", epoch); err != nil {
					t.Fatal(err)
				}
				testkit.Eventually(t, deadline, "the placement's end", func() error {
					if p, err := r.store.Placement(t.Context(), "demo"); err != nil || p.State != stream.PlacementEnded {
						return fmt.Errorf("%+v, %w", p, err)
					}
					return nil
				})
			})
		}
	}
}
