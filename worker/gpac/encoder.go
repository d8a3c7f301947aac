package gpac

import (
	"fmt"
	"math"
	"regexp"
	"slices"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// gpuID is NVML's UUID of a card in lower case. It becomes part of an
// environment.
var gpuID = regexp.MustCompile(`^gpu-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)

// CheckGPU checks a GPU's id: NVML's UUID in lower case. Its error wraps ErrSpec.
func CheckGPU(id string) error {
	if !gpuID.MatchString(id) {
		return fmt.Errorf("%w: GPU %.60q is not gpu- and a UUID in lower case", ErrSpec, id)
	}
	return nil
}

// Env is the environment of a GPAC that encodes on gpu, the CPU when that is
// empty, without HOME and TMPDIR. CUDA shows the process that one card, so that
// the encoder's gpu=0 is it whatever order the driver lists the cards in; CUDA
// wants the prefix in capitals.
func Env(gpu string) []string {
	env := []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"}
	if m := gpuID.FindStringSubmatch(gpu); m != nil {
		env = append(env, "CUDA_VISIBLE_DEVICES=GPU-"+m[1])
	}
	return env
}

// NVENC is libavcodec's name of NVENC's encoder for one of stream.VideoCodecs, ""
// for any other.
func NVENC(codec string) string {
	if !slices.Contains(stream.VideoCodecs(), codec) {
		return ""
	}
	return codec + "_nvenc"
}

// encoder is a rendition's encoder with its options. Both kinds get the same
// keyframes: forced by time, on the segments' own grid, so g is only an upper
// bound, and none at a change of scene (NVENC makes those only with a look-ahead).
// Neither makes B-frames. The names of NVENC's options are those of libavcodec's
// nvenc_h264.c, nvenc_hevc.c and nvenc_av1.c. Its rc is not among them: GPAC 2.x
// has an option of that name, so the preset's rate control stands, bounded by
// maxrate and bufsize.
func (s Spec) encoder(v stream.OutVideo, gops int64) string {
	fps := frameRate(v)
	keys := fmt.Sprintf("fintra=%d/%d", s.segmentMillis(), 1000*gops)
	own := "" // what only this version wants
	if !s.Version.legacy() {
		own = fmt.Sprintf(":time_base=1/%d", s.ticks())
	}
	if s.GPU == "" {
		return fmt.Sprintf("ffenc:c=libx264:%s:%s:preset=%s:tune=zerolatency:g=%d:bf=0:sc_threshold=0:forced-idr=1:x264-params=fps=%d/%d%s",
			rates(v.Bitrate, 2*v.Bitrate), keys, v.Preset, 2*v.GOP, fps.Num, fps.Den, own)
	}
	b := v.Bitrate
	if s.Version.legacy() { // so that each frame gets its share
		b = int64(math.Round(float64(b) * s.sourceRate().Float() / fps.Float()))
	}
	return fmt.Sprintf("ffenc:c=%s:%s:%s:preset=%s:tune=ll:g=%d:bf=0:forced-idr=1:gpu=0%s",
		NVENC(v.Codec), rates(b, 2*v.Bitrate), keys, stream.NVENCPreset(v.Preset), 2*v.GOP, own)
}

// ticks are the source's clock's in a second: RTMP's milliseconds, RTSP's 90 kHz.
func (s Spec) ticks() int64 {
	if s.rtsp() {
		return 90000
	}
	return 1000
}

// nvencTicks is how many ticks NVENC's time base on 1.x has for each frame.
const nvencTicks = 4

// sourceRate is what GPAC is told to be the source's frame rate; zero leaves it to
// the demuxer.
//
// Both 1.0.1 and 2.2.1 take its inverse for the codec's time base and round every
// timestamp to it: whole frames would be doubled and shifted. 2.x lets the option
// time_base have the last word, with the source's own ticks, so that timestamps
// pass as they are, and is told the true rate, which NVENC's rate control and level
// follow.
//
// On 1.x x264 gets the source's ticks as its rate, and the true rate beside it.
// NVENC has no such option, and fits rate and level to the time base: a few ticks
// for each frame keep the frames apart, and the level that is written is that of as
// many times the frame rate. Measured on 1.0.1 with x264 in NVENC's place: no frame
// doubled, the bitrate within a tenth. GPUs want 2.x.
func (s Spec) sourceRate() stream.Rate {
	var fps stream.Rate
	if v := s.Media.Video; v != nil {
		fps = v.FPS
	}
	switch {
	case !s.Version.legacy():
		return fps
	case s.GPU != "":
		if fps.IsZero() {
			fps = stream.Rate{Num: stream.NominalFPS, Den: 1}
		}
		return stream.Rate{Num: nvencTicks * fps.Num, Den: fps.Den}
	}
	return stream.Rate{Num: s.ticks(), Den: 1}
}

// rates are the options of a bitrate that may be exceeded by a tenth.
func rates(b, buffer int64) string {
	return fmt.Sprintf("b=%d:maxrate=%d:bufsize=%d", b, b+b/10, buffer)
}

func frameRate(v stream.OutVideo) stream.Rate {
	if v.FPS.IsZero() {
		return stream.Rate{Num: stream.NominalFPS, Den: int64(max(1, v.FrameStep))}
	}
	return v.FPS
}

// checkEncoder says what of a rendition can't be encoded where the run is to be.
func (s Spec) checkEncoder(v stream.OutVideo) string {
	switch {
	case !presetGrammar.MatchString(v.Preset) || NVENC(v.Codec) == "":
		return fmt.Sprintf("%s: codec %q, preset %q", v.Name, v.Codec, v.Preset)
	case s.GPU == "" && v.Codec != "h264":
		return fmt.Sprintf("%s: %s is encoded by GPUs alone, and this run is on the CPU", v.Name, v.Codec)
	}
	return ""
}
