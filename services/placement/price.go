// Package placement decides where a broadcast is transcoded. It is pure: it
// reads a snapshot and a request, and proposes; services/store commits,
// atomically, what still fits then. docs/placement.md tells the whole of it.
package placement

import (
	"math"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Cost is what a ladder takes of a device of one kind, and of its host.
type Cost struct {
	// Px is of the device's capacity, in px/s of its kind's unit.
	Px int64 `json:"px_s"`
	// Widest is the dearest single encoder session, in px/s of the same unit.
	Widest int64 `json:"widest_px_s"`
	// Sessions are the encoder sessions: one for each video rendition.
	Sessions int `json:"sessions"`
	// Memory of the card in bytes; 0 on a CPU. An estimate.
	Memory int64 `json:"memory_bytes"`
	// HostPx is what a run on a GPU takes of the host's CPU for decoding and
	// scaling, in px/s of x264's veryfast; 0 on a CPU, whose Px holds it.
	HostPx int64 `json:"host_px_s"`
}

// x264Weight is the CPU time per pixel relative to encoding one with x264's
// veryfast. Measured: user time of ffmpeg 5.1 with libx264 on a shared two-core
// machine, one try each, 5 s of testsrc2 with noise at 1280×720 and 30 frames
// per second, to 2.8 Mbit/s with tune zerolatency; decoding at 5 Mbit/s.
func x264Weight(preset string) float64 {
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
	decodeWeight = 0.34 // per pixel of the source, as x264Weight
	scaleWeight  = 0.13 // per pixel of the source and rendition of another size
)

// nvencWeight is an engine's time per pixel relative to H.264 at P3. Source:
// NVENC application note of Video Codec SDK 13, frames per second of one engine
// at 1080p, P1 CBR low latency · P3 · P5 · P7 VBR high quality. H.264: Turing
// 855·602·264·207, Ampere 868·617·266·213, Ada 910·647·283·211, Blackwell
// 977·708·317·227. HEVC (from a public copy of that table, whose H.264 rows are
// the same): 932·552·334·171, 943·557·335·171, 1055·706·411·181,
// 1134·947·521·181. Each weight is the dearest generation's: its H.264 at P3 over
// the entry. The even presets are not in the table: the geometric mean of their
// neighbours. AV1 is an assumption: the dearer of the two others.
func nvencWeight(codec, preset string) float64 {
	p := stream.NVENCPreset(preset)[1] - '1'
	h264 := [...]float64{0.725, 0.85, 1, 1.52, 2.32, 2.69, 3.12}
	hevc := [...]float64{0.66, 0.86, 1.11, 1.43, 1.85, 2.69, 3.92}
	switch codec {
	case "hevc":
		return hevc[p]
	case "av1":
		return max(h264[p], hevc[p])
	}
	return h264[p]
}

// The memory of a card that a run takes. An estimate, not measured: drivers do
// not document it. What failures teach (capacity.Learned) corrects it.
const (
	contextMemory  = 128 << 20 // CUDA's context of the process
	sessionMemory  = 32 << 20  // an encoder session apart from its pictures
	sessionPicture = 16        // pictures of NV12 (1.5 bytes a pixel): input pool, references, reconstruction
)

// rate is a frame rate or, when it is unknown, the nominal one.
func rate(fps stream.Rate, step int) float64 {
	if f := fps.Float(); f > 0 {
		return f
	}
	return stream.NominalFPS / float64(max(1, step))
}

// encode is one encoder session to price.
type encode struct {
	codec, preset string
	pixels        int64   // of a picture
	fps           float64 // of the rendition
}

func (e encode) on(kind capacity.Kind) float64 {
	px := float64(e.pixels) * e.fps
	if kind == capacity.GPU {
		return px * nvencWeight(e.codec, e.preset)
	}
	return px * x264Weight(e.preset)
}

// tally sums sessions up. host is the decoding and scaling.
func tally(kind capacity.Kind, encodes []encode, host float64) Cost {
	var c Cost
	var sum, widest float64
	for _, e := range encodes {
		px := e.on(kind)
		sum += px
		widest = max(widest, px)
		if kind == capacity.GPU {
			c.Memory += sessionMemory + e.pixels*3/2*sessionPicture
		}
	}
	c.Sessions = len(encodes)
	c.Widest = int64(math.Ceil(widest))
	if kind == capacity.GPU {
		c.Memory += contextMemory
		c.HostPx = int64(math.Ceil(host))
	} else {
		sum += host
	}
	c.Px = max(1, int64(math.Ceil(sum)))
	return c
}

// Price is what a ladder costs on a device of a kind: the sum of width × height
// × frame rate × codec and preset weight over its renditions, and the decoding
// and scaling of the source, which are the CPU's on either kind (GPAC has no
// scaling on a GPU). An unknown frame rate counts as stream.NominalFPS. Px is at
// least 1.
func Price(kind capacity.Kind, l stream.Ladder, src stream.SourceMedia) Cost {
	encodes := make([]encode, 0, len(l.Video))
	for _, v := range l.Video {
		encodes = append(encodes, encode{v.Codec, v.Preset, int64(v.Width) * int64(v.Height), rate(v.FPS, v.FrameStep)})
	}
	var host float64
	if s := src.Video; s != nil && len(l.Video) > 0 {
		weight := decodeWeight
		for _, v := range l.Video {
			if v.Width != s.Width || v.Height != s.Height {
				weight += scaleWeight
			}
		}
		host = float64(s.Width) * float64(s.Height) * rate(s.FPS, 1) * weight
	}
	return tally(kind, encodes, host)
}

// PriceProfile is what to reserve for a source that is not known yet: every
// rung at its full size and its frame rate's cap, scaled from a source of the
// largest rung's size. A rung without a cap counts as stream.NominalFPS. When
// the source turns out dearer, the worker asks for the difference.
func PriceProfile(kind capacity.Kind, p stream.Profile) Cost {
	var source float64
	encodes := make([]encode, 0, stream.MaxVideoRenditions)
	for _, v := range p.Video {
		e := encode{v.Codec, v.Preset, int64(v.Width) * int64(v.Height), v.FPS}
		if e.fps == 0 {
			e.fps = stream.NominalFPS
		}
		source = max(source, float64(e.pixels)*e.fps)
		encodes = append(encodes, e)
	}
	return tally(kind, encodes, source*(decodeWeight+scaleWeight*float64(len(p.Video))))
}

// PriceFor is what to reserve for a profile: the price of the ladder that it makes
// of the source where that is known, the profile's otherwise. A source without
// picture counts as unknown to a profile with video: the picture may still come.
func PriceFor(kind capacity.Kind, p stream.Profile, media *stream.SourceMedia) Cost {
	if media == nil || (media.Video == nil && len(p.Video) > 0) {
		return PriceProfile(kind, p)
	}
	l, err := p.Ladder(*media)
	if err != nil {
		return PriceProfile(kind, p)
	}
	return Price(kind, l, *media)
}

// Reserve lists what a run of that cost holds at a worker, the device first. On
// a GPU there follow the host's CPU for HostPx, when the report has one; the
// card's memory; and the encoder sessions, when the card's are limited and the
// system has a limit.
func (c Cost) Reserve(w capacity.Report, d capacity.Device) []stream.Reservation {
	list := []stream.Reservation{{Resource: d.ID, Amount: c.Px}}
	if d.Kind != capacity.GPU {
		return list
	}
	if _, ok := w.Device(capacity.ResourceCPU); ok && c.HostPx > 0 {
		list = append(list, stream.Reservation{Resource: capacity.ResourceCPU, Amount: c.HostPx})
	}
	if c.Memory > 0 {
		list = append(list, stream.Reservation{Resource: capacity.MemoryResource(d.ID), Amount: c.Memory})
	}
	if limitedSessions(w, d) && c.Sessions > 0 {
		list = append(list, stream.Reservation{Resource: capacity.ResourceSessions, Amount: int64(c.Sessions)})
	}
	return list
}

func limitedSessions(w capacity.Report, d capacity.Device) bool {
	return w.SessionLimit != nil && d.GPU != nil && d.GPU.SessionLimited != nil && *d.GPU.SessionLimited
}
