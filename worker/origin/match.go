package origin

import (
	"cmp"
	"math"
	"slices"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// made is one representation that GPAC makes: the files <prefix>_<n>.m4s and
// their init segment.
type made struct {
	prefix string
	init   *initInfo
	// bitrate is measured over the first segment, in bits per second.
	bitrate int64
	// fps is measured over the first segment; zero for audio.
	fps stream.Rate
}

// match maps the representations to the ladder's renditions: by name, where the
// files are named so; else by what they hold (video by picture size, audio by
// channels and then bitrate), because one dasher for all numbers them in an
// unstable order on GPAC 1.0.1. The result has the ladder's order; ok is false
// while a rendition has no counterpart.
func match(ladder stream.Ladder, reps []made) (out []made, tracks []stream.Track, ok bool) {
	var video, audio []made
	for _, r := range reps {
		if r.init.track.Kind == stream.Video {
			video = append(video, r)
		} else {
			audio = append(audio, r)
		}
	}
	if len(video) != len(ladder.Video) || len(audio) != len(ladder.Audio) {
		return nil, nil, false
	}
	byVideo, named := byName(ladder.Video, video, func(v stream.OutVideo) string { return v.Name })
	if !named {
		byVideo = matchVideo(ladder.Video, video)
	}
	for i, v := range byVideo {
		want := ladder.Video[i]
		t := v.init.track
		t.Name, t.Bandwidth, t.AvgBitrate = want.Name, max(want.Bitrate, v.bitrate), want.Bitrate
		t.FPS = snapRate(v.fps, want.FPS)
		out, tracks = append(out, v), append(tracks, t)
	}
	byAudio, named := byName(ladder.Audio, audio, func(a stream.OutAudio) string { return a.Name })
	if !named {
		byAudio = matchAudio(ladder.Audio, audio)
	}
	for i, a := range byAudio {
		want := ladder.Audio[i]
		t := a.init.track
		t.Name, t.Bandwidth, t.AvgBitrate = want.Name, max(want.Bitrate, a.bitrate), want.Bitrate
		out, tracks = append(out, a), append(tracks, t)
	}
	return out, tracks, true
}

func byName[W any](want []W, have []made, name func(W) string) ([]made, bool) {
	out := make([]made, len(want))
	for i, w := range want {
		k := slices.IndexFunc(have, func(m made) bool { return m.prefix == name(w) })
		if k < 0 {
			return nil, false
		}
		out[i] = have[k]
	}
	return out, true
}

func matchVideo(want []stream.OutVideo, have []made) []made {
	out := make([]made, len(want))
	used := make([]bool, len(have))
	for i, w := range want {
		k := slices.IndexFunc(have, func(m made) bool {
			return m.init.track.Width == w.Width && m.init.track.Height == w.Height
		})
		if k < 0 || used[k] {
			return zip(want, have, func(a, b stream.OutVideo) int { return cmp.Compare(a.Width*a.Height, b.Width*b.Height) },
				func(a, b made) int {
					return cmp.Compare(a.init.track.Width*a.init.track.Height, b.init.track.Width*b.init.track.Height)
				})
		}
		out[i], used[k] = have[k], true
	}
	return out
}

func matchAudio(want []stream.OutAudio, have []made) []made {
	return zip(want, have,
		func(a, b stream.OutAudio) int {
			return cmp.Or(cmp.Compare(a.Channels, b.Channels), cmp.Compare(a.Bitrate, b.Bitrate))
		},
		func(a, b made) int {
			return cmp.Or(cmp.Compare(a.init.track.Channels, b.init.track.Channels), cmp.Compare(a.bitrate, b.bitrate),
				cmp.Compare(a.prefix, b.prefix))
		})
}

// zip pairs the k-th smallest of want with the k-th smallest of have, in want's
// order.
func zip[W any](want []W, have []made, byWant func(a, b W) int, byHave func(a, b made) int) []made {
	order := make([]int, len(want))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return byWant(want[a], want[b]) })
	sorted := slices.Clone(have)
	slices.SortStableFunc(sorted, byHave)
	out := make([]made, len(want))
	for k, i := range order {
		out[i] = sorted[k]
	}
	return out
}

// rateTolerance is how far a rate measured over one segment may be from the one
// it stands for: a time scale of 1000 alone makes 0.05 % over 2 s.
const rateTolerance = 0.002

// snapRate returns the exact rate that the measured one stands for: the ladder's
// when it agrees, else n or n·1000/1001, else the measured one.
func snapRate(measured, want stream.Rate) stream.Rate {
	m := measured.Float()
	if m == 0 {
		return want
	}
	near := func(r stream.Rate) bool {
		return !r.IsZero() && math.Abs(r.Float()-m) <= m*rateTolerance
	}
	if near(want) {
		return want
	}
	n := int64(math.Round(m))
	best := measured
	for _, r := range []stream.Rate{{Num: n, Den: 1}, {Num: n * 1000, Den: 1001}, {Num: (n + 1) * 1000, Den: 1001}} {
		if near(r) && (best == measured || math.Abs(r.Float()-m) < math.Abs(best.Float()-m)) {
			best = r
		}
	}
	return best
}

// aacFrame is the number of samples in a frame of AAC-LC.
const aacFrame = 1024

// exactDuration is the duration that info's frames have at the track's rate, in
// its time scale, when the measured one agrees within 3 ms: a coarse time scale
// (GPAC takes RTMP's milliseconds) rounds each frame's duration.
func exactDuration(t stream.Track, info segmentInfo) uint64 {
	var ideal float64
	switch {
	case t.Kind == stream.Video && !t.FPS.IsZero():
		ideal = float64(info.frames) / t.FPS.Float()
	case t.Kind == stream.Audio && t.SampleRate > 0 && t.Codec == "mp4a.40.2":
		ideal = float64(info.frames) * aacFrame / float64(t.SampleRate)
	default:
		return info.duration
	}
	if math.Abs(ideal-float64(info.duration)/float64(t.Timescale)) > 0.003 {
		return info.duration
	}
	return uint64(math.Round(ideal * float64(t.Timescale)))
}
