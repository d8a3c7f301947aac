package transcode

import (
	"bytes"
	"testing"

	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
)

// What an SDP has of the video's parameter sets is told in the order in which a
// stream has them, without those that it lacks.
func TestParameterSetsOfAnSDP(t *testing.T) {
	vps, sps, pps := []byte{0x40, 1}, []byte{0x42, 1}, []byte{0x44, 1}
	for name, c := range map[string]struct {
		in   format.Format
		want [][]byte
	}{
		"h264":         {&format.H264{SPS: sps, PPS: pps, PacketizationMode: 1}, [][]byte{sps, pps}},
		"h264 without": {&format.H264{PacketizationMode: 1}, nil},
		"h265":         {&format.H265{VPS: vps, SPS: sps, PPS: pps}, [][]byte{vps, sps, pps}},
		"h265, no VPS": {&format.H265{SPS: sps, PPS: pps}, [][]byte{sps, pps}},
	} {
		s, _, err := describe(&description.Session{Medias: []*description.Media{{Type: description.MediaTypeVideo, Formats: []format.Format{c.in}}}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := bytes.Join(s.parameters, []byte("|")); !bytes.Equal(got, bytes.Join(c.want, []byte("|"))) || len(s.parameters) != len(c.want) {
			t.Errorf("%s: % x, want % x", name, s.parameters, c.want)
		}
	}
}
