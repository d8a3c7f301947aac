package gpac

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/dionysia-dev/dionysia/services/stream"
)

//go:embed align.js
var align string

//go:embed fromkey.js
var fromkey string

//go:embed thin.js
var thin string

//go:embed nodelay.js
var nodelay string

// fromKey reports whether fromkey.js stands before the video decoder.
func (s Spec) fromKey() bool {
	return s.rtsp() && s.Media.Video != nil && len(s.Ladder.Video) > 0
}

// scripts are the files that the command names, each with the constant that it
// reads before it.
func (s Spec) scripts() map[string]string {
	files := map[string]string{}
	if len(s.Ladder.Audio) > 0 {
		lag := 2
		if s.Version.legacy() {
			lag = 3
		} else {
			files["nodelay.js"] = nodelay
		}
		for _, a := range s.Ladder.Audio {
			files[s.alignFile(a)] = fmt.Sprintf("const withVideo = %t, lag = %d, mix = %d;\n", len(s.Ladder.Video) > 0, lag, s.mix(a)) + align
		}
	}
	if s.fromKey() {
		codec := "avc"
		if s.Media.Video.Codec == "h265" {
			codec = "hevc"
		}
		files["fromkey.js"] = fmt.Sprintf("const codec = %q, parameters = [%s], whole = %t;\n", codec, s.parameters(), !s.Version.legacy()) + fromkey
	}
	for _, v := range s.Ladder.Video {
		if v.FrameStep > 1 {
			files[thinFile(v.FrameStep)] = fmt.Sprintf("const step = %d, fps = %s;\n", v.FrameStep, s.thinned(v.FrameStep)) + thin
		}
	}
	return files
}

// parameters are what fromkey.js puts before the first keyframe: bytes with commas
// between, each parameter set after a start code. 1.x reads the SDP's.
func (s Spec) parameters() string {
	if s.Version.legacy() {
		return ""
	}
	var list []string
	for _, unit := range s.Parameters {
		for _, b := range append([]byte{0, 0, 0, 1}, unit...) {
			list = append(list, strconv.Itoa(int(b)))
		}
	}
	return strings.Join(list, ",")
}

// thinned is the frame rate that thin.js says: on 1.x it is the encoder's time base.
func (s Spec) thinned(step int) string {
	fps := s.sourceRate()
	if s.Version.legacy() || fps.IsZero() {
		return "null"
	}
	return fmt.Sprintf("[%d, %d]", fps.Num, fps.Den*int64(step))
}

// alignFile names align.js as it is for a, by the channels that it leaves.
func (s Spec) alignFile(a stream.OutAudio) string {
	if n := s.mix(a); n > 0 {
		return fmt.Sprintf("align%d.js", n)
	}
	return "align.js"
}

func thinFile(step int) string { return fmt.Sprintf("thin%d.js", step) }

// mix is how many channels align.js leaves of more, or 0. Sound that 2.2.1's
// resampler has mixed begins 20 ms late.
func (s Spec) mix(a stream.OutAudio) int {
	if src := s.Media.Audio; s.Version.legacy() || src == nil || src.Channels <= a.Channels {
		return 0
	}
	return a.Channels
}
