package transcode

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/origin"
)

func TestBackoff(t *testing.T) {
	crash := end{reason: endCrash, lived: time.Second}
	var b backoff
	var got []time.Duration
	for range 9 {
		got = append(got, b.next(crash))
	}
	want := []time.Duration{0, 500e6, 1e9, 2e9, 4e9, 8e9, 10e9, 10e9, 10e9}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	if d := b.next(end{reason: endCrash, lived: 2 * time.Minute}); d != 0 {
		t.Errorf("after a healthy run: %s", d)
	}
	if d := b.next(crash); d != 500*time.Millisecond {
		t.Errorf("the crash after it: %s", d)
	}
	for range 5 {
		if d := b.next(end{reason: endSource, lived: 10 * time.Second}); d != 0 {
			t.Errorf("after the source left: %s", d)
		}
	}
	b = backoff{}
	b.next(end{reason: endSource, lived: time.Second})
	if d := b.next(end{reason: endSource, lived: time.Second}); d == 0 {
		t.Error("a source that closes at once is tried without a pause")
	}
}

func TestStalled(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	rungs := func(a, b float64) []origin.RungProgress {
		one := func(name string, s float64) origin.RungProgress {
			if s < 0 {
				return origin.RungProgress{Name: name}
			}
			return origin.RungProgress{Name: name, LastSegmentAt: at(s)}
		}
		return []origin.RungProgress{one("high", a), one("low", b)}
	}
	for _, c := range []struct {
		name    string
		a, b, s float64
		want    string
	}{
		{"starting", -1, -1, 14.9, ""},
		{"never started", -1, -1, 15.1, "high has no segment"},
		{"one rung never started", 14, -1, 15.1, "low has no segment"},
		{"well", 20, 20, 25.9, ""},
		{"one rung stands still", 26, 20, 26.1, "segment of low is 6.1 s old"},
	} {
		got := stalled(rungs(c.a, c.b), at(c.s), start, 15*time.Second, 6*time.Second)
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestChanged(t *testing.T) {
	base := func() source {
		return source{media: stream.SourceMedia{Video: &stream.SourceVideo{Codec: "h264", Width: 640, Height: 360, SAR: stream.Rate{Num: 1, Den: 1}, FPS: stream.Rate{Num: 30, Den: 1}},
			Audio: &stream.SourceAudio{Codec: "aac", SampleRate: 48000, Channels: 2}}}
	}
	for _, c := range []struct {
		name   string
		change func(was, is *source)
		want   string
	}{
		{"the same", func(_, _ *source) {}, ""},
		{"size", func(_, is *source) { is.media.Video.Width = 320 }, "640×360 → 320×360"},
		{"rate", func(_, is *source) { is.media.Video.FPS.Num = 60 }, "30.000 → 60.000"},
		{"a rate that was measured", func(was, is *source) { was.measured = true; is.media.Video.FPS = stream.Rate{} }, ""},
		{"parameters not known again", func(_, is *source) { is.media.Video.Width = 0 }, ""},
		{"codec", func(_, is *source) { is.media.Video.Codec = "h265" }, "h264 → h265"},
		{"no video", func(_, is *source) { is.media.Video = nil }, "video came or went"},
		{"no audio", func(_, is *source) { is.media.Audio = nil }, "audio came or went"},
		{"audio", func(_, is *source) { is.media.Audio.Channels = 1 }, "2 ch → aac 48000 Hz 1 ch"},
		{"MP3, whose rate is in its frames", func(was, is *source) {
			was.media.Audio.Codec = "mp3"
			is.media.Audio = &stream.SourceAudio{Codec: "mp3"}
		}, ""},
	} {
		was, is := base(), base()
		c.change(&was, &is)
		if got := was.changed(is); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// What a placement drops is promised as far as the source would get it.
func TestFullVideo(t *testing.T) {
	rung := func(name string, w, h int) stream.VideoRendition {
		return stream.VideoRendition{Name: name, Codec: "h264", Width: w, Height: h, Bitrate: int64(w) * 1000, Keyframe: 2, Preset: "veryfast"}
	}
	p := stream.Placement{Profile: stream.Profile{Segment: 2, Video: []stream.VideoRendition{rung("360p", 640, 360)}}}
	media := stream.SourceMedia{Video: &stream.SourceVideo{Codec: "h264", Width: 1280, Height: 720, FPS: stream.Rate{Num: 25, Den: 1}}}
	if got := fullVideo(p, media); got != nil {
		t.Errorf("nothing is dropped: %v", got)
	}
	p.Dropped = []stream.VideoRendition{rung("1080p", 1920, 1080), rung("720p", 1280, 720)}
	got := fullVideo(p, media)
	if len(got) != 2 || got[0].Name != "720p" || got[0].GOP != 50 || got[1].Name != "360p" {
		t.Errorf("of a 720p source: %+v", got)
	}
	if got := fullVideo(p, stream.SourceMedia{Audio: &stream.SourceAudio{Codec: "aac", SampleRate: 48000, Channels: 2}}); len(got) != 0 {
		t.Errorf("of sound alone: %+v", got)
	}
}

func TestMeanRate(t *testing.T) {
	frames := func(n int, fps float64, order ...int) []int64 {
		var out []int64
		for i := range n {
			at := i
			if len(order) > 0 {
				at = i - i%len(order) + order[i%len(order)]
			}
			ms := int64(float64(at)*1000/fps + 0.5)
			out = append(out, ms*90)
		}
		return out
	}
	for _, c := range []struct {
		name  string
		times []int64
		want  stream.Rate
	}{
		{"25", frames(60, 25), stream.Rate{Num: 25, Den: 1}},
		{"29.97", frames(75, 30000./1001), stream.Rate{Num: 30000, Den: 1001}},
		{"30", frames(75, 30), stream.Rate{Num: 30, Den: 1}},
		{"59.94, B-frames", frames(150, 60000./1001, 0, 3, 1, 2), stream.Rate{Num: 60000, Den: 1001}},
		{"13.5", frames(60, 13.5), stream.Rate{Num: 27, Den: 2}},
		{"too few", frames(5, 25), stream.Rate{}},
		{"none", nil, stream.Rate{}},
		{"one time", make([]int64, 20), stream.Rate{}},
	} {
		got := meanRate(c.times)
		if c.name == "13.5" {
			if d := got.Float() - 13.5; d > 0.03 || d < -0.03 {
				t.Errorf("%s: %v", c.name, got)
			}
		} else if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestPlausible(t *testing.T) {
	for _, c := range []struct {
		num, den int64
		want     stream.Rate
	}{
		{60000, 2002, stream.Rate{Num: 30000, Den: 1001}},
		{50, 2, stream.Rate{Num: 25, Den: 1}},
		{1000, 2, stream.Rate{}}, // a time base
		{90000, 2, stream.Rate{}},
		{1, 2, stream.Rate{}},
		{0, 1, stream.Rate{}},
		{25, 0, stream.Rate{}},
		{-25, 1, stream.Rate{}},
	} {
		if got := plausible(c.num, c.den); got != c.want {
			t.Errorf("%d/%d: %v", c.num, c.den, got)
		}
	}
}

func TestLogRing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	r := newLogRing(file)
	for _, s := range []string{"\x1b[31mFirst\x1b[0m\rse", "cond rtmp://h/live/a?token=SECRET:gpac:\n", "\n", strings.Repeat("x", 10000), "\n"} {
		if n, err := r.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	for range 3 * maxLogBytes / 100 {
		_, _ = r.Write([]byte(strings.Repeat("y", 99) + "\n"))
	}
	_, _ = r.Write([]byte("last\n"))
	r.close()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if s := string(b); !strings.HasPrefix(s, "First\nsecond rtmp://h/live/a?token=***:gpac:\nx") || strings.Contains(s, "SECRET") || len(s) > maxLogBytes+2*maxLineLen {
		t.Errorf("%d bytes: %.200q", len(s), s)
	}
	if got := r.tail(1); got != "last" {
		t.Errorf("tail %q", got)
	}
}

// A process in the jail has no privilege, its limits, and does not outlive kill,
// nor do its children.
func TestJail(t *testing.T) {
	j, err := NewJail("")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ring := newLogRing(filepath.Join(dir, "log"))
	defer ring.close()
	p, err := newSpawner().startProcess(j, "sh", []string{"-c", "grep -E '^(Uid|NoNewPrivs|CapBnd)' /proc/self/status; ulimit -n; sleep 600 & sleep 600"},
		[]string{"PATH=/usr/bin:/bin"}, dir, ring)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for !strings.Contains(ring.tail(20), "512") && time.Now().Before(deadline) {
		sleep(context.Background(), 20*time.Millisecond)
	}
	said := ring.tail(20)
	if !strings.Contains(said, "NoNewPrivs:\t1") || !strings.Contains(said, "512") {
		t.Errorf("it says %q", said)
	}
	if os.Geteuid() == 0 && (strings.Contains(said, "Uid:\t0") || !strings.Contains(said, "CapBnd:\t0000000000000000")) {
		t.Errorf("it says %q", said)
	}
	p.kill()
	if err := syscall.Kill(-p.pid(), 0); err != syscall.ESRCH {
		// Children that were killed may wait for init to collect them.
		sleep(context.Background(), time.Second)
		if err := syscall.Kill(-p.pid(), 0); err != syscall.ESRCH && err != nil {
			t.Errorf("its group: %v", err)
		}
	}
	if _, err := NewJail("root"); os.Geteuid() == 0 && err == nil {
		t.Error("GPAC may run as root")
	}
	if _, err := NewJail("no-such-user-here"); os.Geteuid() == 0 && err == nil {
		t.Error("an unknown user was taken")
	}
}
