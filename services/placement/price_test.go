package placement

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// The reservation for an unknown source covers every source up to the nominal
// frame rate and the largest rung's size.
func TestPriceProfileCovers(t *testing.T) {
	n := 0
	cases(t, &n)
	rapid.Check(t, func(t *rapid.T) {
		n++
		p := drawProfile(t)
		src := stream.SourceMedia{Video: &stream.SourceVideo{
			Width:  rapid.IntRange(16, p.Video[0].Width).Draw(t, "width"),
			Height: rapid.IntRange(16, p.Video[0].Height).Draw(t, "height"),
			FPS:    stream.Rate{Num: rapid.Int64Range(1, 30).Draw(t, "fps"), Den: 1},
		}}
		l, err := p.Ladder(src)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []capacity.Kind{capacity.CPU, capacity.GPU} {
			got, most := Price(kind, l, src), PriceProfile(kind, p)
			// A rung may be a pixel wider than its box's own aspect by rounding.
			if got.Px > most.Px+most.Px/100 || got.HostPx > most.HostPx || got.Sessions > most.Sessions || got.Memory > most.Memory+most.Memory/100 {
				t.Fatalf("%s: %+v is above the reserved %+v: %+v", kind, got, most, l)
			}
		}
	})
}

func TestPrice(t *testing.T) {
	src := stream.SourceMedia{Video: &stream.SourceVideo{Width: 1280, Height: 720, FPS: stream.Rate{Num: 60, Den: 1}}}
	one := stream.Ladder{Video: []stream.OutVideo{{Codec: "h264", Width: 640, Height: 360, FPS: stream.Rate{Num: 30, Den: 1}, FrameStep: 2, Preset: "veryfast"}}}
	const encode, host = int64(640 * 360 * 30), int64(1280 * 720 * 60 * 47 / 100)
	if got, want := Price(capacity.CPU, one, src), (Cost{Px: encode + host, Widest: encode, Sessions: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	const memory = int64(128<<20 + 32<<20 + 640*360*3/2*16)
	if got, want := Price(capacity.GPU, one, src), (Cost{Px: encode, Widest: encode, Sessions: 1, Memory: memory, HostPx: host}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, kind := range []capacity.Kind{capacity.CPU, capacity.GPU} {
		last := int64(0)
		for _, preset := range stream.Presets() {
			l := stream.Ladder{Video: []stream.OutVideo{one.Video[0]}}
			l.Video[0].Preset = preset
			if px := Price(kind, l, src).Px; px <= last {
				t.Errorf("%s on a %s costs %d, no more than the preset before", preset, kind, px)
			} else {
				last = px
			}
		}
	}
	if got := Price(capacity.CPU, stream.Ladder{Audio: []stream.OutAudio{{}}}, stream.SourceMedia{}).Px; got != 1 {
		t.Errorf("audio alone costs %d, want 1", got)
	}
}

// A frame rate that is not known is the nominal one.
func TestPriceUnknownRate(t *testing.T) {
	v := stream.OutVideo{Codec: "h264", Width: 100, Height: 100, FrameStep: 1, Preset: "veryfast"}
	if got := Price(capacity.CPU, stream.Ladder{Video: []stream.OutVideo{v}}, stream.SourceMedia{}).Px; got != 300_000 {
		t.Errorf("got %d, want 300000", got)
	}
}

func TestHeld(t *testing.T) {
	for name, c := range map[string]struct {
		load Load
		used *int64
		want int64
	}{
		"unknown":          {Load{100, 60, 2}, nil, 100},
		"less is used":     {Load{100, 0, 2}, ptr(int64(40)), 100},
		"more is used":     {Load{100, 0, 2}, ptr(int64(140)), 140},
		"young on top":     {Load{100, 60, 2}, ptr(int64(70)), 130},
		"nothing reserved": {Load{}, ptr(int64(70)), 70},
	} {
		if got := c.load.Held(c.used); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// With the source known a profile has the price of the ladder that it makes of
// it; without a picture that may still come, the profile's.
func TestPriceFor(t *testing.T) {
	p := builtin("1080p")
	dear := &stream.SourceMedia{Video: &stream.SourceVideo{Codec: "h264", Width: 1920, Height: 1080, FPS: stream.Rate{Num: 60, Den: 1}}}
	small := &stream.SourceMedia{Video: &stream.SourceVideo{Codec: "h264", Width: 640, Height: 360, FPS: stream.Rate{Num: 30, Den: 1}}}
	for _, kind := range []capacity.Kind{capacity.CPU, capacity.GPU} {
		whole := PriceProfile(kind, p)
		if got := PriceFor(kind, p, nil); got != whole {
			t.Errorf("%s: unknown costs %+v, want %+v", kind, got, whole)
		}
		if got := PriceFor(kind, p, &stream.SourceMedia{Audio: &stream.SourceAudio{Codec: "aac"}}); got != whole {
			t.Errorf("%s: without picture it costs %+v, want %+v", kind, got, whole)
		}
		l, err := p.Ladder(*dear)
		if err != nil {
			t.Fatal(err)
		}
		if got := PriceFor(kind, p, dear); got != Price(kind, l, *dear) || got.Px <= whole.Px {
			t.Errorf("%s: 1080p60 costs %+v, the profile %+v", kind, got, whole)
		}
		if got := PriceFor(kind, p, small); got.Px >= whole.Px {
			t.Errorf("%s: 360p costs %+v, the profile %+v", kind, got, whole)
		}
	}
	s := &Snapshot{Workers: []Worker{cpuWorker("a", PriceProfile(capacity.CPU, p).Px)}}
	if _, err := Decide(s, Request{Stream: "s", Profile: p, Media: dear}); err == nil {
		t.Error("a source that is dearer than the device fits")
	}
	if d, err := Decide(s, Request{Stream: "s", Profile: p, Media: small}); err != nil || d.Reserved[0].Amount != PriceFor(capacity.CPU, p, small).Px {
		t.Errorf("a small source: %+v, %v", d, err)
	}
}
