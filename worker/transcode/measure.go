package transcode

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg1audio"
	"github.com/pion/rtp"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// How long packets are read where a DESCRIBE leaves something open.
const (
	rateTime = 2500 * time.Millisecond // for a frame rate
	sizeTime = 10 * time.Second        // for parameters: until the next keyframe
)

// tracks are those of an SDP that are used.
type tracks struct {
	video, audio             *description.Media
	videoFormat, audioFormat format.Format
}

// measure plays what a DESCRIBE has left open for a moment: the picture's size
// or rate, and what is in MP3's frames. played says that it had to.
func (t tracks) measure(ctx context.Context, c *gortsplib.Client, desc *description.Session, src *source) (played bool, err error) {
	v, a := src.media.Video, src.media.Audio
	video := v != nil && (v.Width == 0 || v.FPS.IsZero())
	audio := a != nil && a.SampleRate == 0
	s := &sampler{}
	if video {
		if _, err := c.Setup(desc.BaseURL, t.video, 0, 0); err != nil {
			return true, errors.New(gpac.Mask(err.Error()))
		}
		if err := s.attachVideo(c, t.video, t.videoFormat); err != nil {
			return true, err
		}
	}
	if audio {
		if _, err := c.Setup(desc.BaseURL, t.audio, 0, 0); err != nil {
			return true, errors.New(gpac.Mask(err.Error()))
		}
		if err := s.attachAudio(c, t.audio, t.audioFormat); err != nil {
			return true, err
		}
	}
	if !video && !audio {
		return false, nil
	}
	if _, err := c.Play(nil); err != nil {
		return true, errors.New(gpac.Mask(err.Error()))
	}
	src.measured = video
	start := time.Now()
	for sleep(ctx, 50*time.Millisecond) {
		if video && v.Width == 0 {
			s.size(v)
		}
		if video && v.FPS.IsZero() && time.Since(start) > rateTime {
			v.FPS = s.rate()
		}
		if audio && a.SampleRate == 0 {
			s.sound(a)
		}
		sized := !video || v.Width > 0 && (!v.FPS.IsZero() || time.Since(start) > rateTime)
		if sized && (!audio || a.SampleRate > 0) {
			return true, nil
		}
		if time.Since(start) > sizeTime {
			return true, errors.New("it sends nothing that tells its format")
		}
	}
	return true, ctx.Err()
}

// sampler collects what packets tell. Its callbacks run on the
// client's goroutine.
type sampler struct {
	mu    sync.Mutex
	times []int64 // of access units, 90 kHz
	sps   []byte
	h265  bool
	mp3   []byte // the start of a frame
}

func (s *sampler) note(pts int64, units [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, pts)
	for _, u := range units {
		if len(u) > 0 && (!s.h265 && u[0]&0x1f == byte(h264.NALUTypeSPS) || s.h265 && u[0]>>1&0x3f == byte(h265.NALUType_SPS_NUT)) {
			s.sps = slices.Clone(u)
		}
	}
}

func (s *sampler) size(v *stream.SourceVideo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.h265 {
		readSPS265(s.sps, v)
	} else {
		readSPS264(s.sps, v)
	}
}

// rate is the mean over what was seen, taken for the nearest usual rate when it
// is within 0.2 % of one.
func (s *sampler) rate() stream.Rate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return meanRate(s.times)
}

func meanRate(times []int64) stream.Rate {
	if len(times) < 8 {
		return stream.Rate{}
	}
	// B-frames come out of order, so both ends may have holes.
	sorted := slices.Sorted(slices.Values(times))
	if len(sorted) > 24 {
		sorted = sorted[4 : len(sorted)-4]
	}
	span := sorted[len(sorted)-1] - sorted[0]
	if span <= 0 {
		return stream.Rate{}
	}
	f := float64(len(sorted)-1) * 90000 / float64(span)
	best, diff := stream.Rate{}, 0.002
	for _, r := range usualRates() {
		if d := math.Abs(f/r.Float() - 1); d < diff {
			best, diff = r, d
		}
	}
	if best.IsZero() {
		best = plausible(int64(math.Round(f*1000)), 1000)
	}
	return best
}

func usualRates() []stream.Rate {
	return []stream.Rate{{Num: 10, Den: 1}, {Num: 12, Den: 1}, {Num: 15, Den: 1}, {Num: 20, Den: 1}, {Num: 24000, Den: 1001}, {Num: 24, Den: 1}, {Num: 25, Den: 1},
		{Num: 30000, Den: 1001}, {Num: 30, Den: 1}, {Num: 48, Den: 1}, {Num: 50, Den: 1}, {Num: 60000, Den: 1001}, {Num: 60, Den: 1}, {Num: 100, Den: 1}, {Num: 120, Den: 1}}
}

// attachVideo lets the sampler see the access units of a track.
func (s *sampler) attachVideo(c *gortsplib.Client, m *description.Media, f format.Format) error {
	switch f := f.(type) {
	case *format.H264:
		dec, err := f.CreateDecoder()
		if err != nil {
			return err
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
			return err
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

// attachAudio lets the sampler see the frames of an MP3 track.
func (s *sampler) attachAudio(c *gortsplib.Client, m *description.Media, f format.Format) error {
	mp3, ok := f.(*format.MPEG1Audio)
	if !ok {
		return errors.New("its " + f.Codec() + " track does not tell its sample rate")
	}
	dec, err := mp3.CreateDecoder()
	if err != nil {
		return err
	}
	c.OnPacketRTP(m, f, func(pkt *rtp.Packet) {
		if frames, err := dec.Decode(pkt); err == nil && len(frames) > 0 {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.mp3 = slices.Clone(frames[0])
		}
	})
	return nil
}

func (s *sampler) sound(a *stream.SourceAudio) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var h mpeg1audio.FrameHeader
	if len(s.mp3) == 0 || h.Unmarshal(s.mp3) != nil {
		return
	}
	a.SampleRate, a.Channels = h.SampleRate, 2
	if h.ChannelMode == mpeg1audio.ChannelModeMono {
		a.Channels = 1
	}
}
