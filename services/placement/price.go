// Package placement decides where a broadcast is transcoded. It is pure: it
// reads an immutable snapshot and a request, and proposes; services/store
// commits, atomically, what still fits then.
package placement

import (
	"math"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// presetWeight is the cost of an encoded pixel relative to x264's veryfast.
// Rough ratios, not measured.
func presetWeight(preset string) float64 {
	switch preset {
	case "ultrafast":
		return 0.5
	case "superfast":
		return 0.7
	case "veryfast":
		return 1
	case "faster":
		return 1.5
	case "fast":
		return 2
	case "medium":
		return 2.4
	default: // slow
		return 4
	}
}

// decodeWeight is the cost of decoding and scaling a source pixel relative to
// encoding one with veryfast.
const decodeWeight = 0.15

// Price is what a ladder costs on a CPU, in px/s of x264's veryfast: the sum of
// width × height × frame rate × preset weight over its renditions, and the
// decoding of the source (0 when the ladder has no video). At least 1. An
// unknown frame rate counts as stream.NominalFPS.
func Price(l stream.Ladder, src stream.SourceMedia) int64 {
	var sum float64
	for _, v := range l.Video {
		fps := v.FPS.Float()
		if fps == 0 {
			fps = stream.NominalFPS / float64(max(1, v.FrameStep))
		}
		sum += float64(v.Width) * float64(v.Height) * fps * presetWeight(v.Preset)
	}
	if s := src.Video; s != nil && len(l.Video) > 0 {
		fps := s.FPS.Float()
		if fps == 0 {
			fps = stream.NominalFPS
		}
		sum += float64(s.Width) * float64(s.Height) * fps * decodeWeight
	}
	return max(1, int64(math.Ceil(sum)))
}

// PriceProfile is what to reserve for a source that is not known yet: every
// rung at its full size and its frame rate's cap, from a source of the largest
// rung's size. A rung without a cap counts as stream.NominalFPS; when the source
// turns out faster, the worker asks for the difference (store.Shrink also
// raises, within the limit).
func PriceProfile(p stream.Profile) int64 {
	var sum, source float64
	for _, v := range p.Video {
		fps := v.FPS
		if fps == 0 {
			fps = stream.NominalFPS
		}
		px := float64(v.Width) * float64(v.Height) * fps
		sum += px * presetWeight(v.Preset)
		source = max(source, px*decodeWeight)
	}
	return max(1, int64(math.Ceil(sum+source)))
}
