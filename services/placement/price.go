// Package placement decides where a broadcast is transcoded. It is pure: it
// reads an immutable snapshot and a request, and proposes; services/store
// commits, atomically, what still fits then.
package placement

import (
	"math"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// The weights are the CPU time per pixel relative to encoding one with x264's
// veryfast. Measured: user time of ffmpeg 5.1 with libx264 on a shared two-core
// machine, one try each, 5 s of testsrc2 with noise at 1280×720 and 30 frames
// per second, to 2.8 Mbit/s with tune zerolatency; decoding at 5 Mbit/s.
func presetWeight(preset string) float64 {
	switch preset {
	case "ultrafast":
		return 0.37
	case "superfast":
		return 0.68
	case "veryfast":
		return 1
	case "faster":
		return 1.5
	case "fast":
		return 2.6
	case "medium":
		return 3
	default: // slow
		return 5.8
	}
}

const (
	decodeWeight = 0.34 // per pixel of the source
	scaleWeight  = 0.13 // per pixel of the source and rendition of another size
)

// Price is what a ladder costs on a CPU, in px/s of x264's veryfast: the sum of
// width × height × frame rate × preset weight over its renditions, and the
// decoding and scaling of the source. An unknown frame rate counts as
// stream.NominalFPS. At least 1.
func Price(l stream.Ladder, src stream.SourceMedia) int64 {
	var sum, perSourcePixel float64
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
		perSourcePixel = decodeWeight
		for _, v := range l.Video {
			if v.Width != s.Width || v.Height != s.Height {
				perSourcePixel += scaleWeight
			}
		}
		sum += float64(s.Width) * float64(s.Height) * fps * perSourcePixel
	}
	return max(1, int64(math.Ceil(sum)))
}

// PriceProfile is what to reserve for a source that is not known yet: every
// rung at its full size and its frame rate's cap, scaled from a source of the
// largest rung's size. A rung without a cap counts as stream.NominalFPS. When
// the source turns out dearer, the worker asks for the difference (store.Shrink
// also raises, within the limit).
func PriceProfile(p stream.Profile) int64 {
	var sum, source float64
	for _, v := range p.Video {
		fps := v.FPS
		if fps == 0 {
			fps = stream.NominalFPS
		}
		px := float64(v.Width) * float64(v.Height) * fps
		sum += px * presetWeight(v.Preset)
		source = max(source, px)
	}
	return max(1, int64(math.Ceil(sum+source*(decodeWeight+scaleWeight*float64(len(p.Video))))))
}
