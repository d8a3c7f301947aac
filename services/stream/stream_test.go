package stream

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestCheckID(t *testing.T) {
	for _, id := range []string{"a", "demo", "a-b_c", "0", strings.Repeat("a", 63)} {
		if err := CheckID(id); err != nil {
			t.Errorf("%q refused: %v", id, err)
		}
	}
	for _, id := range []string{"", "-a", "a-", "_", "A", "a b", "a/b", "..", "a.b", "a:b", "a=b", "a#b", "a@b", "a'b", "a$b$", "é", "a\n", "a\x00", strings.Repeat("a", 64)} {
		if err := CheckID(id); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", id, err)
		}
	}
	for _, name := range []string{"init", "seg", "index", "master", "manifest"} {
		if err := CheckRenditionName(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("rendition %q: got %v, want ErrInvalid", name, err)
		}
		if err := CheckName(name); err != nil {
			t.Errorf("profile %q refused: %v", name, err)
		}
	}
}

func TestBuiltinsAreValid(t *testing.T) {
	for _, p := range Builtins() {
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

func TestStreamValidate(t *testing.T) {
	good := Stream{ID: "demo", Name: "Test", Profile: "720p", Grace: 15, HoldBack: 12, Window: 60}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		field string
		edit  func(*Stream)
	}{
		"id":              {"id", func(s *Stream) { s.ID = "../x" }},
		"profile":         {"profile", func(s *Stream) { s.Profile = "a:b" }},
		"name control":    {"name", func(s *Stream) { s.Name = "a\nb" }},
		"name utf8":       {"name", func(s *Stream) { s.Name = "\xff" }},
		"name long":       {"name", func(s *Stream) { s.Name = strings.Repeat("x", 201) }},
		"grace negative":  {"grace_seconds", func(s *Stream) { s.Grace = -1 }},
		"grace NaN":       {"grace_seconds", func(s *Stream) { s.Grace = Seconds(math.NaN()) }},
		"grace infinite":  {"grace_seconds", func(s *Stream) { s.Grace = Seconds(math.Inf(1)) }},
		"hold back short": {"hold_back_seconds", func(s *Stream) { s.HoldBack = 5 }},
		"window short":    {"window_seconds", func(s *Stream) { s.Window = 29 }},
		"window too near": {"window_seconds", func(s *Stream) { s.HoldBack, s.Window = 30, 59 }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := good
			c.edit(&s)
			wantField(t, s.Validate(), c.field)
		})
	}
}

func wantField(t *testing.T, err error, field string) {
	t.Helper()
	if !errors.Is(err, ErrInvalid) {
		t.Fatalf("got %v, want ErrInvalid", err)
	}
	if !slices.ContainsFunc(FieldErrors(err), func(f FieldError) bool { return f.Field == field }) {
		t.Fatalf("got %v, want field %s", err, field)
	}
}

func TestProfileValidate(t *testing.T) {
	cases := map[string]struct {
		field string
		edit  func(*Profile)
	}{
		"no rendition":   {"video", func(p *Profile) { p.Video, p.Audio = nil, nil }},
		"separator":      {"video[0].name", func(p *Profile) { p.Video[0].Name = "a:b" }},
		"reserved":       {"video[0].name", func(p *Profile) { p.Video[0].Name = "seg" }},
		"twice":          {"audio[0].name", func(p *Profile) { p.Audio[0].Name = p.Video[0].Name }},
		"codec":          {"video[1].codec", func(p *Profile) { p.Video[1].Codec = "h264:x=1" }},
		"odd":            {"video[1].width", func(p *Profile) { p.Video[1].Width = 641 }},
		"huge":           {"video[1].height", func(p *Profile) { p.Video[1].Height = 1 << 30 }},
		"fps":            {"video[0].fps", func(p *Profile) { p.Video[0].FPS = math.NaN() }},
		"bitrate":        {"video[0].bitrate", func(p *Profile) { p.Video[0].Bitrate = -1 }},
		"keyframe zero":  {"video[0].keyframe_seconds", func(p *Profile) { p.Video[0].Keyframe = 0 }},
		"keyframe 1.5":   {"video[0].keyframe_seconds", func(p *Profile) { p.Video[0].Keyframe = 1.5 }},
		"keyframes vary": {"video[1].keyframe_seconds", func(p *Profile) { p.Video[1].Keyframe = 1 }},
		"preset":         {"video[0].preset", func(p *Profile) { p.Video[0].Preset = "veryfast:crf=1" }},
		"audio codec":    {"audio[0].codec", func(p *Profile) { p.Audio[0].Codec = "mp3" }},
		"channels":       {"audio[0].channels", func(p *Profile) { p.Audio[0].Channels = 6 }},
		"segment":        {"segment_seconds", func(p *Profile) { p.Segment = 0 }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := Builtins()[0]
			p.Video, p.Audio = slices.Clone(p.Video), slices.Clone(p.Audio)
			c.edit(&p)
			wantField(t, p.Validate(), c.field)
		})
	}
}

func TestLadder(t *testing.T) {
	type size struct{ w, h, step, gop int }
	fps := func(n, d int64) Rate { return Rate{Num: n, Den: d} }
	capped := Profile{Name: "capped", Segment: 2, Video: []VideoRendition{
		{Name: "hi", Codec: "h264", Width: 1280, Height: 720, Bitrate: 3e6, Keyframe: 1, Preset: "veryfast"},
		{Name: "lo", Codec: "h264", Width: 640, Height: 360, FPS: 15, Bitrate: 5e5, Keyframe: 1, Preset: "veryfast"},
	}}
	cases := map[string]struct {
		profile string
		src     SourceVideo
		want    []size
		segment float64
	}{
		"16:9 at 30":          {"720p", SourceVideo{Width: 1280, Height: 720, FPS: fps(30, 1)}, []size{{1280, 720, 1, 60}, {854, 480, 1, 60}, {640, 360, 1, 60}}, 2},
		"29.97":               {"360p", SourceVideo{Width: 1920, Height: 1080, FPS: fps(30000, 1001)}, []size{{640, 360, 1, 60}}, 2.002},
		"small source":        {"720p", SourceVideo{Width: 320, Height: 240, FPS: fps(25, 1)}, []size{{320, 240, 1, 50}}, 2},
		"vertical":            {"720p", SourceVideo{Width: 1080, Height: 1920, FPS: fps(30, 1)}, []size{{720, 1280, 1, 60}, {480, 854, 1, 60}, {360, 640, 1, 60}}, 2},
		"4:3":                 {"1080p", SourceVideo{Width: 1440, Height: 1080, FPS: fps(50, 1)}, []size{{1440, 1080, 1, 100}, {960, 720, 1, 100}, {640, 480, 1, 100}, {480, 360, 1, 100}}, 2},
		"anamorphic PAL":      {"480p", SourceVideo{Width: 720, Height: 576, SAR: fps(64, 45), FPS: fps(25, 1)}, []size{{854, 480, 1, 50}, {640, 360, 1, 50}}, 2},
		"cropped 1080p":       {"1080p", SourceVideo{Width: 1904, Height: 1072, FPS: fps(30, 1)}, []size{{1904, 1072, 1, 60}, {1278, 720, 1, 60}, {852, 480, 1, 60}, {640, 360, 1, 60}}, 2},
		"odd source":          {"360p", SourceVideo{Width: 641, Height: 361, FPS: fps(30, 1)}, []size{{640, 360, 1, 60}}, 2},
		"capped at half":      {"capped", SourceVideo{Width: 1280, Height: 720, FPS: fps(30, 1)}, []size{{1280, 720, 1, 30}, {640, 360, 2, 15}}, 2},
		"capped, odd GOP":     {"capped", SourceVideo{Width: 1280, Height: 720, FPS: fps(25, 1)}, []size{{1280, 720, 1, 26}, {640, 360, 2, 13}}, 2.08},
		"unknown rate":        {"360p", SourceVideo{Width: 640, Height: 360}, []size{{640, 360, 1, 60}}, 2},
		"cap just below rate": {"capped", SourceVideo{Width: 640, Height: 360, FPS: fps(15001, 1000)}, []size{{640, 360, 1, 15}}, 1.99987},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p, ok := Builtin(c.profile)
			if !ok {
				p = capped
			}
			l, err := p.Ladder(SourceMedia{Video: &c.src})
			if err != nil {
				t.Fatal(err)
			}
			var got []size
			for _, v := range l.Video {
				got = append(got, size{v.Width, v.Height, v.FrameStep, v.GOP})
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if math.Abs(float64(l.Segment)-c.segment) > 1e-4 {
				t.Errorf("segments of %v s, want %v", l.Segment, c.segment)
			}
		})
	}
}

func TestLadderAudio(t *testing.T) {
	p := Builtins()[0]
	l, err := p.Ladder(SourceMedia{Audio: &SourceAudio{Codec: "opus", SampleRate: 48000, Channels: 1}})
	if err != nil {
		t.Fatal(err)
	}
	want := OutAudio{Name: "aac", Codec: "aac", Bitrate: 128_000, Channels: 1, SampleRate: 48000}
	if len(l.Audio) != 1 || l.Audio[0] != want || len(l.Video) != 0 || l.Segment != 2 {
		t.Errorf("got %+v", l)
	}
	p.Audio = nil
	for name, src := range map[string]SourceMedia{"nothing": {}, "audio for a profile without": {Audio: &SourceAudio{Channels: 2}}} {
		if _, err := p.Ladder(src); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

// Whatever the profile and the source: never above the source, even, the aspect
// within rounding, no duplicate, keyframes on the same source frames.
func TestLadderHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genProfile(t)
		src := SourceVideo{
			Width:  rapid.IntRange(16, 4096).Draw(t, "width"),
			Height: rapid.IntRange(16, 4096).Draw(t, "height"),
			SAR:    rapid.SampledFrom([]Rate{{}, {1, 1}, {4, 3}, {64, 45}, {8, 9}}).Draw(t, "sar"),
			FPS:    rapid.SampledFrom([]Rate{{}, {24000, 1001}, {25, 1}, {30000, 1001}, {30, 1}, {50, 1}, {60000, 1001}, {120, 1}, {7, 1}}).Draw(t, "fps"),
		}
		l, err := p.Ladder(SourceMedia{Video: &src})
		if err != nil {
			t.Fatal(err)
		}
		if len(l.Video) == 0 || len(l.Video) > len(p.Video) {
			t.Fatalf("%d rungs of %d", len(l.Video), len(p.Video))
		}
		dw, dh := displaySize(src)
		seen := map[[2]int]bool{}
		for _, v := range l.Video {
			if v.Width%2 != 0 || v.Height%2 != 0 || v.Width < 2 || v.Height < 2 {
				t.Fatalf("%d×%d is not even", v.Width, v.Height)
			}
			if float64(v.Width) > dw || float64(v.Height) > dh {
				t.Fatalf("%d×%d is above the source's %g×%g", v.Width, v.Height, dw, dh)
			}
			if v.FPS.Float() > src.FPS.Float() {
				t.Fatalf("%v frames per second of a source of %v", v.FPS, src.FPS)
			}
			// Each side is off the exact scale by at most one pixel of rounding,
			// or just under two where an odd source is cut to even.
			fw, fh := float64(v.Width)/dw, float64(v.Height)/dh
			if off := math.Abs(fw - fh); off > 2/dw+2/dh {
				t.Fatalf("%d×%d of %g×%g: the aspect is off by %g", v.Width, v.Height, dw, dh, off)
			}
			key := [2]int{v.Width, v.Height}
			if seen[key] {
				t.Fatalf("%v twice", key)
			}
			seen[key] = true
			if v.GOP*v.FrameStep != l.Video[0].GOP*l.Video[0].FrameStep || v.GOP < 1 {
				t.Fatalf("keyframes are not aligned: %+v", l.Video)
			}
			i := slices.IndexFunc(p.Video, func(r VideoRendition) bool { return r.Name == v.Name })
			if i < 0 || p.Video[i].Bitrate != v.Bitrate {
				t.Fatalf("%+v is no rung of the profile", v)
			}
			if limit := p.Video[i].FPS; limit > 0 && v.FPS.Float() > limit*fpsTolerance {
				t.Fatalf("%v frames per second are above the cap of %g", v.FPS, limit)
			}
		}
		if len(l.Video) > 1 && float64(l.Segment) <= 0 {
			t.Fatalf("segments of %v s", l.Segment)
		}
	})
}

func genProfile(t *rapid.T) Profile {
	p := Profile{Name: "p", Segment: 2}
	for i := range rapid.IntRange(1, 6).Draw(t, "rungs") {
		p.Video = append(p.Video, VideoRendition{
			Name: string(rune('a' + i)), Codec: "h264", Preset: "veryfast", Keyframe: 2,
			Width:   2 * rapid.IntRange(8, 2048).Draw(t, "box width"),
			Height:  2 * rapid.IntRange(8, 2048).Draw(t, "box height"),
			FPS:     rapid.SampledFrom([]float64{0, 0, 15, 24, 25, 30, 60}).Draw(t, "cap"),
			Bitrate: int64(rapid.IntRange(32_000, 10_000_000).Draw(t, "bitrate")),
		})
	}
	if err := p.Validate(); err != nil {
		t.Fatalf("the generator makes invalid profiles: %v", err)
	}
	return p
}

func TestParseRunID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := RunID{Epoch: rapid.Uint64().Draw(t, "epoch"), Run: rapid.Uint32().Draw(t, "run")}
		if got, err := ParseRunID(id.String()); err != nil || got != id {
			t.Fatalf("%v: %v, %v", id, got, err)
		}
	})
	for _, s := range []string{"", "e1", "r1", "e1r", "e01r1", "e1r01", "e+1r1", "E1R1", "e1r1/..", " e1r1", "e1r1e1r1", "1r1", "e1r4294967296"} {
		if _, err := ParseRunID(s); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", s, err)
		}
	}
}
