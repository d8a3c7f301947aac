package manifest_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/origin/manifest"
)

var update = flag.Bool("update", false, "write the golden files")

var t0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func video(name string, w, h int, bitrate int64) stream.Track {
	return stream.Track{Name: name, Kind: stream.Video, Codec: "avc1.64001e", Timescale: 1000, Bandwidth: bitrate,
		AvgBitrate: bitrate, Width: w, Height: h, FPS: stream.Rate{Num: 30000, Den: 1001}}
}

func audio(name string, channels int, bitrate int64) stream.Track {
	return stream.Track{Name: name, Kind: stream.Audio, Codec: "mp4a.40.2", Timescale: 1000, Bandwidth: bitrate,
		AvgBitrate: bitrate, Channels: channels, SampleRate: 48000}
}

// build lists runs one after the other, the first number being first, each of n
// segments of 2.002 s, with a loss of wall-clock time before each later run.
func build(first uint64, lost time.Duration, n int, runs ...stream.Run) *manifest.Presentation {
	p := &manifest.Presentation{Start: t0, Published: t0.Add(time.Hour), Segment: 2 * time.Second, Window: time.Minute,
		HoldBack: 12 * time.Second, Target: manifest.TargetDuration(2*time.Second, 12*time.Second),
		Runs: map[stream.RunID]stream.Run{}}
	const d = 2002 * time.Millisecond
	start, pdt := 3500*time.Millisecond, t0.Add(3500*time.Millisecond)
	for k, run := range runs {
		run.ID = stream.RunID{Epoch: 3, Run: uint32(k + 1)}
		run.Start = start
		if k == 0 {
			p.Variants = run.Tracks
		} else {
			pdt = pdt.Add(lost)
		}
		for i := range run.Tracks {
			run.Tracks[i].TimeOffset = 484484
		}
		p.Runs[run.ID] = run
		for i := range n {
			s := stream.Segment{Number: first, Run: run.ID, Local: uint64(i + 1), Discontinuity: k > 0 && i == 0,
				DiscSeq: uint64(k), ProgramDateTime: pdt, Start: start, Duration: d, Parts: map[string]stream.Part{}}
			for _, t := range run.Tracks {
				part := stream.Part{Time: 484484 + uint64(i)*2002, Duration: 2002, Size: t.Bandwidth * 2 / 8}
				if t.Kind == stream.Audio {
					part = stream.Part{Time: 483754 + uint64(i)*2005, Duration: 2005, Size: 24000}
				}
				s.Parts[t.Name] = part
			}
			p.Segments = append(p.Segments, s)
			first, start, pdt = first+1, start+d, pdt.Add(d)
		}
	}
	return p
}

func TestGolden(t *testing.T) {
	av := func() stream.Run {
		return stream.Run{Tracks: []stream.Track{video("720p", 1280, 720, 2_800_000), video("360p", 640, 360, 800_000), audio("aac", 2, 96_000)}}
	}
	small := stream.Run{Tracks: []stream.Track{video("360p", 640, 360, 800_000), audio("aac", 2, 96_000)}}
	mono := stream.Run{Tracks: []stream.Track{audio("low", 1, 32_000), audio("high", 2, 128_000)}}
	silent := stream.Run{Tracks: []stream.Track{video("360p", 640, 360, 800_000)}}
	tests := []struct {
		name  string
		p     *manifest.Presentation
		media []string
	}{
		{"one-run", build(1, 0, 3, av()), []string{"720p", "aac"}},
		{"two-runs", build(41, 5*time.Second, 2, av(), av()), []string{"720p", "aac"}},
		{"tag-has-left", func() *manifest.Presentation {
			p := build(41, 5*time.Second, 2, av(), av())
			p.Segments = p.Segments[3:]
			return p
		}(), []string{"360p"}},
		{"smaller-second-run", build(7, time.Second, 1, av(), small), []string{"720p", "360p"}},
		{"audio-only", build(1, 0, 2, mono), []string{"low"}},
		{"video-only", build(1, 0, 2, silent), []string{"360p"}},
		{"audio-lost", build(1, 0, 1, av(), silent), []string{"aac"}},
		{"dropped-rung-comes-alive", func() *manifest.Presentation {
			p := build(1, 0, 2, small, av())
			p.Variants = append([]stream.Track{video("720p", 1280, 720, 2_800_000)}, p.Variants...)
			return p
		}(), []string{"720p", "360p"}},
		// Each variant without its own rendition lists one of its own codec.
		{"codecs-apart", func() *manifest.Presentation {
			hevc := func(t stream.Track) stream.Track { t.Codec = "hvc1.1.6.L93.B0"; return t }
			p := build(1, 0, 1, stream.Run{Tracks: []stream.Track{hevc(video("720p-hevc", 1280, 720, 1_800_000)), video("360p", 640, 360, 800_000)}})
			p.Variants = append([]stream.Track{hevc(video("1080p-hevc", 1920, 1080, 3_000_000)), video("1080p", 1920, 1080, 5_000_000)}, p.Variants...)
			return p
		}(), []string{"1080p-hevc", "1080p"}},
		{"ended", func() *manifest.Presentation {
			p := build(1, 0, 2, av())
			p.Ended = true
			return p
		}(), []string{"720p"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			b, err := tc.p.Master()
			check(t, tc.name+".master.m3u8", b, err)
			b, err = tc.p.MPD()
			check(t, tc.name+".mpd", b, err)
			for _, name := range tc.media {
				b, err = tc.p.Media(name)
				check(t, tc.name+"."+name+".m3u8", b, err)
			}
		})
	}
}

func check(t *testing.T, name string, got []byte, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", name, d)
	}
}

func TestUnknownRenditionHasNoPlaylist(t *testing.T) {
	p := build(1, 0, 1, stream.Run{Tracks: []stream.Track{video("360p", 640, 360, 800_000)}})
	if b, err := p.Media("nope"); b != nil || err != nil {
		t.Errorf("Media(nope) = %q, %v", b, err)
	}
}

func TestTargetDuration(t *testing.T) {
	for _, tc := range []struct {
		segment, hold time.Duration
		want          int
	}{
		{2 * time.Second, 12 * time.Second, 3},
		{2 * time.Second, 6 * time.Second, 2},
		{2002 * time.Millisecond, 12 * time.Second, 4},
		{time.Second, 6 * time.Second, 2},
		{6 * time.Second, 12 * time.Second, 6},
		{0, 0, 1},
	} {
		if got := manifest.TargetDuration(tc.segment, tc.hold); got != tc.want {
			t.Errorf("TargetDuration(%v, %v) = %d, want %d", tc.segment, tc.hold, got, tc.want)
		}
	}
}
