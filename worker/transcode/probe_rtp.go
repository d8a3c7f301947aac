package transcode

import (
	"fmt"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/pion/rtp"
)

// attach lets the sampler see the access units of a track.
func (s *sampler) attach(c *gortsplib.Client, m *description.Media, f format.Format) error {
	switch f := f.(type) {
	case *format.H264:
		dec, err := f.CreateDecoder()
		if err != nil {
			return fmt.Errorf("reading %s: %w", f.Codec(), err)
		}
		c.OnPacketRTP(m, f, func(pkt *rtp.Packet) {
			pts, ok := c.PacketPTS(m, pkt)
			if au, err := dec.Decode(pkt); err == nil && ok {
				s.note(pts, au)
			}
		})
	case *format.H265:
		s.h265 = true
		dec, err := f.CreateDecoder()
		if err != nil {
			return fmt.Errorf("reading %s: %w", f.Codec(), err)
		}
		c.OnPacketRTP(m, f, func(pkt *rtp.Packet) {
			pts, ok := c.PacketPTS(m, pkt)
			if au, err := dec.Decode(pkt); err == nil && ok {
				s.note(pts, au)
			}
		})
	}
	return nil
}
