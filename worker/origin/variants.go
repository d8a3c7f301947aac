package origin

import (
	"slices"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/origin/manifest"
)

// variants are the variant playlists of a broadcast whose first run makes tracks:
// one for each, and one for each rung of full that the run leaves out for want of
// room, in full's order. Such a variant lists the nearest rendition's segments
// until a later run makes its own, at the same URL (ADR 3).
func variants(tracks []stream.Track, full []stream.OutVideo) []stream.Track {
	made := func(name string) int {
		return slices.IndexFunc(tracks, func(t stream.Track) bool { return t.Name == name })
	}
	if len(tracks) == 0 || tracks[0].Kind != stream.Video {
		return tracks
	}
	var out []stream.Track
	for _, v := range full {
		if i := made(v.Name); i < 0 {
			out = append(out, promised(v, tracks))
		} else if tracks[i].Kind == stream.Video {
			out = append(out, tracks[i])
		}
	}
	for _, t := range tracks {
		if !slices.ContainsFunc(out, func(o stream.Track) bool { return o.Name == t.Name }) {
			out = append(out, t)
		}
	}
	return out
}

// promised is a rung's track before any run has made it.
func promised(v stream.OutVideo, tracks []stream.Track) stream.Track {
	t := stream.Track{Name: v.Name, Kind: stream.Video, Timescale: tracks[0].Timescale, TimeOffset: tracks[0].TimeOffset,
		Codec: typical(v.Codec), Bandwidth: v.Bitrate, AvgBitrate: v.Bitrate, Width: v.Width, Height: v.Height, FPS: v.FPS}
	if t.FPS.IsZero() {
		t.FPS = tracks[0].FPS
	}
	for _, m := range tracks {
		if m.Kind == stream.Video && manifest.Family(m.Codec) == manifest.Family(t.Codec) {
			t.Codec = m.Codec
			break
		}
	}
	return t
}

// typical is a codec's string for 1080p at 30 frames per second.
func typical(codec string) string {
	switch codec {
	case "hevc":
		return "hvc1.1.6.L120.90"
	case "av1":
		return "av01.0.08M.08"
	}
	return "avc1.640028"
}
