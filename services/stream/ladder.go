package stream

import (
	"fmt"
	"math"
)

// Ladder is what a run makes of its source.
type Ladder struct {
	Video []OutVideo `json:"video"`
	Audio []OutAudio `json:"audio"`
	// Segment is the segments' exact length: a whole number of keyframe
	// intervals of the source's rate, the one nearest to the profile's, e.g.
	// 2.002 at 29.97 frames per second. Without video it is the profile's.
	Segment Seconds `json:"segment_seconds"`
}

// OutVideo is one video rendition of a run. Square samples.
type OutVideo struct {
	Name   string `json:"name"`
	Codec  string `json:"codec"`
	Preset string `json:"preset"`
	Width  int    `json:"width"`  // even
	Height int    `json:"height"` // even
	// FPS is the source's rate over FrameStep; zero when the source's is unknown.
	FPS Rate `json:"fps"`
	// FrameStep n keeps every nth frame; 1 keeps all.
	FrameStep int `json:"frame_step"`
	// GOP is the number of this rendition's frames from keyframe to keyframe.
	// GOP × FrameStep is the same on every rung.
	GOP     int   `json:"gop"`
	Bitrate int64 `json:"bitrate"` // bits per second
}

// OutAudio is one audio rendition of a run.
type OutAudio struct {
	Name       string `json:"name"`
	Codec      string `json:"codec"`
	Bitrate    int64  `json:"bitrate"` // bits per second
	Channels   int    `json:"channels"`
	SampleRate int    `json:"sample_rate"` // Hz
}

// NominalFPS stands for a frame rate that is not known (and not capped).
const NominalFPS = 30

const (
	// nearlyFits is how much larger than the source a rung's box may be to make
	// a rung of the source's own size instead of none: 1904×1072 still gets the
	// 1080p rung's bitrate.
	nearlyFits = 1.1
	// fpsTolerance is how far above its cap a measured rate still passes whole.
	fpsTolerance = 1.005
)

// Ladder decides what is made of a source: no rung above its display size or
// frame rate, its aspect kept (a box is turned for a source that is taller than
// wide), even sizes; of rungs that come out equal in codec and size the one
// with the higher bitrate stays. When no rung fits, there is one at the
// source's own size with the lowest rung's name and bitrate. Channels and
// sample rate are at most the source's. A source, or a profile for it, that
// leaves neither video nor audio is ErrInvalid.
func (p Profile) Ladder(src SourceMedia) (Ladder, error) {
	l := Ladder{Segment: p.Segment}
	if src.Video != nil && len(p.Video) > 0 {
		v := *src.Video
		if v.Width < 2 || v.Height < 2 || v.FPS.Num < 0 || v.FPS.Den < 0 || v.SAR.Num < 0 || v.SAR.Den < 0 {
			return Ladder{}, fmt.Errorf("source video of %d×%d, %d/%d frames per second, sample aspect %d:%d: %w",
				v.Width, v.Height, v.FPS.Num, v.FPS.Den, v.SAR.Num, v.SAR.Den, ErrInvalid)
		}
		l.Video, l.Segment = p.videoLadder(v)
	}
	if src.Audio != nil {
		l.Audio = p.audioLadder(*src.Audio)
	}
	if len(l.Video)+len(l.Audio) == 0 {
		return Ladder{}, fmt.Errorf("nothing to make: the source has %s, profile %s makes %s: %w",
			tracks(src.Video != nil, src.Audio != nil), p.Name, tracks(len(p.Video) > 0, len(p.Audio) > 0), ErrInvalid)
	}
	return l, nil
}

func tracks(video, audio bool) string {
	switch {
	case video && audio:
		return "video and audio"
	case video:
		return "video only"
	case audio:
		return "audio only"
	}
	return "no track"
}

func (p Profile) videoLadder(src SourceVideo) ([]OutVideo, Seconds) {
	dw, dh := displaySize(src)
	var out []OutVideo
	for _, r := range p.Video {
		if w, h, ok := fit(r, dw, dh); ok {
			out = merge(out, rung(r, w, h, src.FPS))
		}
	}
	if len(out) == 0 {
		low := p.Video[0]
		for _, r := range p.Video {
			if r.Bitrate < low.Bitrate {
				low = r
			}
		}
		out = []OutVideo{rung(low, floorEven(dw), floorEven(dh), src.FPS)}
	}
	return out, alignGOPs(out, p, src.FPS)
}

// displaySize is the picture's size with square samples.
func displaySize(v SourceVideo) (w, h float64) {
	w, h = float64(v.Width), float64(v.Height)
	if !v.SAR.IsZero() {
		w *= v.SAR.Float()
	}
	return max(w, 2), h
}

// fit places a picture of dw×dh in the rung's box; ok is false when the box is
// above the picture.
func fit(r VideoRendition, dw, dh float64) (w, h int, ok bool) {
	bw, bh := float64(r.Width), float64(r.Height)
	if (bw < bh) != (dw < dh) {
		bw, bh = bh, bw
	}
	f := min(bw/dw, bh/dh)
	if f > nearlyFits {
		return 0, 0, false
	}
	f = min(f, 1)
	return min(roundEven(dw*f), floorEven(dw)), min(roundEven(dh*f), floorEven(dh)), true
}

func roundEven(v float64) int { return max(2, 2*int(math.Round(v/2))) }
func floorEven(v float64) int { return max(2, 2*int(math.Floor(v/2+1e-9))) }

func rung(r VideoRendition, w, h int, fps Rate) OutVideo {
	o := OutVideo{Name: r.Name, Codec: r.Codec, Preset: r.Preset, Width: w, Height: h, Bitrate: r.Bitrate, FrameStep: 1, FPS: fps}
	if f := fps.Float(); r.FPS > 0 && f > r.FPS*fpsTolerance {
		o.FrameStep = int(math.Ceil(f / (r.FPS * fpsTolerance)))
		o.FPS = Rate{Num: fps.Num, Den: fps.Den * int64(o.FrameStep)}
	}
	return o
}

// merge appends o, or keeps the better of it and the rung that is its equal.
func merge(out []OutVideo, o OutVideo) []OutVideo {
	for i, have := range out {
		if have.Codec == o.Codec && have.Width == o.Width && have.Height == o.Height {
			if o.Bitrate > have.Bitrate {
				out[i] = o
			}
			return out
		}
	}
	return append(out, o)
}

// alignGOPs gives every rung the keyframe interval that lies nearest to the
// profile's among those that all of them can keep: a number of the source's
// frames that every FrameStep divides. It returns the segments' length.
func alignGOPs(out []OutVideo, p Profile, fps Rate) Seconds {
	rate := fps.Float()
	if rate == 0 {
		rate = NominalFPS
	}
	step := 1
	for _, o := range out {
		step = lcm(step, o.FrameStep)
	}
	keyframe := p.Video[0].Keyframe
	frames := step * max(1, int(math.Round(rate*float64(keyframe)/float64(step))))
	for i := range out {
		out[i].GOP = frames / out[i].FrameStep
	}
	gops := max(1, int(math.Round(float64(p.Segment)/float64(keyframe))))
	if fps.IsZero() {
		return p.Segment
	}
	return Seconds(float64(gops*frames) * float64(fps.Den) / float64(fps.Num))
}

func lcm(a, b int) int {
	x, y := a, b
	for y != 0 {
		x, y = y, x%y
	}
	return a / x * b
}

// aacRates are the sampling frequencies of AAC up to 48 kHz, ISO/IEC 14496-3
// table 1.18.
var aacRates = [...]int{48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000}

func (p Profile) audioLadder(src SourceAudio) []OutAudio {
	rate := 48000
	for _, r := range aacRates {
		if src.SampleRate == r {
			rate = r
		}
	}
	var out []OutAudio
next:
	for _, a := range p.Audio {
		o := OutAudio{Name: a.Name, Codec: a.Codec, Bitrate: a.Bitrate, Channels: a.Channels, SampleRate: rate}
		if src.Channels > 0 {
			o.Channels = min(o.Channels, src.Channels)
		}
		for _, have := range out {
			if have.Codec == o.Codec && have.Channels == o.Channels && have.Bitrate == o.Bitrate {
				continue next
			}
		}
		out = append(out, o)
	}
	return out
}
