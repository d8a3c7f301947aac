package gpac

import (
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

var update = flag.Bool("update", false, "write the golden files")

func versions() map[string]Version {
	return map[string]Version{
		"1.0.1": {Major: 1, Text: "1.0.1-rev1.0.1+dfsg1-4+deb11u3"},
		"2.x":   {Major: 26, Minor: 8, Text: "26.08-DEV-rev1-gabc"},
	}
}

const gpu = "gpu-8a9bcdef-0123-4567-89ab-cdef01234567"

func spec() Spec {
	ntsc := stream.Rate{Num: 30000, Den: 1001}
	return Spec{
		Source: "rtmp://127.0.0.1:1935/live/demo?token=abc.DEF-1_2",
		Media: stream.SourceMedia{Video: &stream.SourceVideo{Codec: "h264", Width: 1280, Height: 720, FPS: ntsc},
			Audio: &stream.SourceAudio{Codec: "aac", SampleRate: 48000, Channels: 2}},
		Ladder: stream.Ladder{Segment: 2.002, Video: []stream.OutVideo{
			{Name: "720p", Codec: "h264", Preset: "veryfast", Width: 1280, Height: 720, FPS: ntsc, FrameStep: 1, GOP: 60, Bitrate: 2_800_000},
			{Name: "360p", Codec: "h264", Preset: "veryfast", Width: 640, Height: 360, FPS: ntsc, FrameStep: 1, GOP: 60, Bitrate: 800_000}},
			Audio: []stream.OutAudio{{Name: "aac", Codec: "aac", Bitrate: 96_000, Channels: 2, SampleRate: 48000}}},
		Keep: 180 * time.Second,
	}
}

func TestGolden(t *testing.T) {
	cases := map[string]func(*Spec){
		"rtmp": func(*Spec) {},
		"rtsp-60-to-30": func(s *Spec) {
			s.Source = "rtsp://[::1]:8554/live/demo"
			s.Parameters = [][]byte{{0x40, 1, 2}, {0x42, 255}, {0x44}}
			s.Media.Video.FPS, s.Media.Video.Codec = stream.Rate{Num: 60, Den: 1}, "h265"
			s.Media.Audio = &stream.SourceAudio{Codec: "opus", SampleRate: 48000, Channels: 2}
			s.Ladder.Segment = 2
			s.Ladder.Video[0].FPS, s.Ladder.Video[0].GOP = stream.Rate{Num: 60, Den: 1}, 120
			s.Ladder.Video[1].FPS, s.Ladder.Video[1].FrameStep = stream.Rate{Num: 60, Den: 2}, 2
		},
		"mono-of-aac": func(s *Spec) { s.Ladder.Audio[0].Channels = 1 },
		"mono-and-stereo": func(s *Spec) {
			s.Ladder.Audio = append(s.Ladder.Audio, stream.OutAudio{Name: "mono", Codec: "aac", Bitrate: 48_000, Channels: 1, SampleRate: 48000})
		},
		"mono-of-opus": func(s *Spec) {
			s.Ladder.Audio[0].Channels, s.Media.Audio.Codec = 1, "opus"
		},
		"mp3": func(s *Spec) {
			s.Media.Audio = &stream.SourceAudio{Codec: "mp3", SampleRate: 44100, Channels: 2}
			s.Source = "rtsp://h:8554/live/demo"
			s.Ladder.Audio[0].SampleRate = 44100
		},
		"no-audio-unknown-rate": func(s *Spec) {
			s.Media.Audio, s.Ladder.Audio, s.Ladder.Segment = nil, nil, 2
			for i := range s.Ladder.Video {
				s.Ladder.Video[i].FPS = stream.Rate{}
			}
		},
		"audio-only": func(s *Spec) { s.Media.Video, s.Ladder.Video = nil, nil },
		"nvenc-h264": func(s *Spec) { s.GPU = gpu },
		"nvenc-hevc-rtsp-60-to-30": func(s *Spec) {
			s.GPU, s.Source, s.Ladder.Segment = gpu, "rtsp://h:8554/live/demo", 2
			s.Media.Video.FPS = stream.Rate{Num: 60, Den: 1}
			s.Ladder.Video[0].FPS, s.Ladder.Video[0].GOP = stream.Rate{Num: 60, Den: 1}, 120
			s.Ladder.Video[1].FPS, s.Ladder.Video[1].FrameStep = stream.Rate{Num: 60, Den: 2}, 2
			s.Ladder.Video[0].Codec, s.Ladder.Video[0].Preset = "hevc", "slow"
		},
		"nvenc-av1": func(s *Spec) {
			s.GPU = gpu
			for i := range s.Ladder.Video {
				s.Ladder.Video[i].Codec, s.Ladder.Video[i].Preset = "av1", "medium"
			}
		},
		"two-gops": func(s *Spec) {
			for i := range s.Ladder.Video {
				s.Ladder.Video[i].GOP = 30
			}
		},
	}
	for name, change := range cases {
		for vname, v := range versions() {
			t.Run(name+"/"+vname, func(t *testing.T) {
				s := spec()
				s.Version = v
				change(&s)
				c, err := Build(s)
				if err != nil {
					t.Fatal(err)
				}
				got := strings.Join(c.Args, "\n") + "\n"
				for _, e := range c.Env {
					if strings.HasPrefix(e, "CUDA") {
						got += e + "\n"
					}
				}
				for _, name := range slices.Sorted(maps.Keys(c.Files)) {
					first, _, _ := strings.Cut(c.Files[name], "\n")
					got += name + ": " + first + "\n"
				}
				file := filepath.Join("testdata", name+"_"+vname+".golden")
				if *update {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if got != string(want) {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}

// Every string that goes into an argument refuses every separator.
func TestSeparatorsAreRefused(t *testing.T) {
	fields := map[string]func(*Spec, string){
		"video name": func(s *Spec, x string) { s.Ladder.Video[0].Name = x },
		"audio name": func(s *Spec, x string) { s.Ladder.Audio[0].Name = x },
		"codec":      func(s *Spec, x string) { s.Ladder.Video[0].Codec = x },
		"preset":     func(s *Spec, x string) { s.Ladder.Video[0].Preset = x },
		"path":       func(s *Spec, x string) { s.Source = "rtmp://h:1935/live/" + x },
		"host":       func(s *Spec, x string) { s.Source = "rtmp://" + x + "/live/demo" },
		"token":      func(s *Spec, x string) { s.Source = "rtmp://h/live/demo?token=" + x },
		"GPU": func(s *Spec, x string) {
			if s.GPU = x; x == "" { // the CPU
				s.GPU = " "
			}
		},
		"GPU's UUID": func(s *Spec, x string) { s.GPU = gpu + x + "0" },
		"scheme":     func(s *Spec, x string) { s.Source = x + "://h/live/demo" },
	}
	bad := []string{"", "a:b:c", "a=b", "a,b", "a#b", "a@b", "a!b", "a$b", "a$Number$", "a b", "a\nb", "a\x00b", "a\\b", `a"b`, "a'b", "a`b", "a;b",
		"a|b", "a&b", "/..", "a/../b", "a%2fb", "é", "a:gpac:b", ":gpac", strings.Repeat("a", 3000)}
	for name, set := range fields {
		for _, b := range bad {
			s := spec()
			s.Version = versions()["1.0.1"]
			set(&s, b)
			if c, err := Build(s); !errors.Is(err, ErrSpec) {
				t.Errorf("%s %q: %v, %v", name, b, err, c.Args)
			}
		}
	}
}

func TestNumbersAreChecked(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"odd width":    func(s *Spec) { s.Ladder.Video[0].Width = 641 },
		"no GOP":       func(s *Spec) { s.Ladder.Video[0].GOP = 0 },
		"no step":      func(s *Spec) { s.Ladder.Video[0].FrameStep = 0 },
		"negative":     func(s *Spec) { s.Ladder.Video[0].Bitrate = -1 },
		"same names":   func(s *Spec) { s.Ladder.Video[0].Name = s.Ladder.Video[1].Name },
		"nothing":      func(s *Spec) { s.Ladder.Video, s.Ladder.Audio = nil, nil },
		"no version":   func(s *Spec) { s.Version = Version{} },
		"no keep":      func(s *Spec) { s.Keep = 0 },
		"long segment": func(s *Spec) { s.Ladder.Segment = 1e9 },
		"no channels":  func(s *Spec) { s.Ladder.Audio[0].Channels = 0 },
	} {
		s := spec()
		s.Version = versions()["1.0.1"]
		change(&s)
		if _, err := Build(s); !errors.Is(err, ErrSpec) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for _, c := range []struct {
		name, out    string
		major, minor int
		ok           bool
	}{
		{"1.0.1", "gpac - GPAC command line filter engine - version 1.0.1-rev1.0.1+dfsg1-4+deb11u3\n(c) 2000", 1, 0, true},
		{"2.2.1", "gpac - GPAC command line filter engine - version 2.2.1-rev2.2.1\n", 2, 2, true},
		{"by date", "gpac - GPAC command line filter engine - version 26.08-DEV-rev100-gabc-master\n", 26, 8, true},
		{"0.8", "GPAC version 0.8.0-rev\n", 0, 0, false},
		{"another program", "ffmpeg version 5.1.6\n", 0, 0, false},
		{"nothing", "", 0, 0, false},
	} {
		v, err := ParseVersion([]byte(c.out))
		if (err == nil) != c.ok || v.Major != c.major || v.Minor != c.minor || err != nil && !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %+v, %v", c.name, v, err)
		}
	}
}

func TestTokensAreMasked(t *testing.T) {
	s := spec()
	s.Version = versions()["1.0.1"]
	c, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	if text := c.String(); strings.Contains(text, "abc.DEF") || !strings.Contains(text, "token=***:gpac:") {
		t.Error(text)
	}
	s.Source += "!"
	if _, err := Build(s); strings.Contains(err.Error(), "abc.DEF") {
		t.Error(err)
	}
}
