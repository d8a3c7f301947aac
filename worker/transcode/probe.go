package transcode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h264"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/h265"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// errAbsent says that nothing is published at the source's path.
var errAbsent = errors.New("no publisher")

// refusal says why a source can't be transcoded.
type refusal struct{ reason string }

func (r refusal) Error() string { return r.reason }

// source is what a DESCRIBE told.
type source struct {
	media stream.SourceMedia
	// measured is set when the frame rate comes from the packets' times and not
	// from the SPS: it is not compared later.
	measured bool
	// parameters are the parameter sets of the video that the SDP has.
	parameters [][]byte
	// ignored names tracks that are left out, each with the reason.
	ignored []string
}

// changed says what differs in b, "" when it is the same format.
func (s source) changed(b source) string {
	switch av, bv := s.media.Video, b.media.Video; {
	case (av == nil) != (bv == nil):
		return "video came or went"
	case av == nil:
	case av.Codec != bv.Codec:
		return fmt.Sprintf("video codec %s → %s", av.Codec, bv.Codec)
	case bv.Width == 0: // parameters not seen yet
	case av.Width != bv.Width || av.Height != bv.Height || av.SAR != bv.SAR:
		return fmt.Sprintf("picture %d×%d → %d×%d", av.Width, av.Height, bv.Width, bv.Height)
	case !s.measured && !bv.FPS.IsZero() && av.FPS != bv.FPS:
		return fmt.Sprintf("frame rate %.3f → %.3f", av.FPS.Float(), bv.FPS.Float())
	}
	switch aa, ba := s.media.Audio, b.media.Audio; {
	case (aa == nil) != (ba == nil):
		return "audio came or went"
	case aa != nil && ba.SampleRate == 0 && aa.Codec == ba.Codec: // in the frames
	case aa != nil && *aa != *ba:
		return fmt.Sprintf("audio %s %d Hz %d ch → %s %d Hz %d ch", aa.Codec, aa.SampleRate, aa.Channels, ba.Codec, ba.SampleRate, ba.Channels)
	}
	return ""
}

// dialTimeout bounds each step of a probe.
const dialTimeout = 3 * time.Second

// prober asks mediamtx, by RTSP DESCRIBE, what it has. It keeps its connection
// between questions: mediamtx logs each one. One goroutine uses it.
type prober struct {
	c *gortsplib.Client
}

func (p *prober) close() {
	if p.c != nil {
		p.c.Close()
		p.c = nil
	}
}

// probe asks for url, which has its token. It returns errAbsent, a refusal, or
// another error. With measure it reads packets when the answer leaves something
// open.
func (p *prober) probe(ctx context.Context, url string, measure bool) (source, error) {
	u, err := base.ParseURL(url)
	if err != nil {
		return source{}, fmt.Errorf("parsing the source's RTSP URL: %w", errors.New(gpac.Mask(err.Error())))
	}
	if p.c != nil && (p.c.Scheme != u.Scheme || p.c.Host != u.Host) {
		p.close()
	}
	again := p.c != nil
	src, err := p.ask(ctx, u, measure)
	if again && err != nil && ctx.Err() == nil && !errors.Is(err, errAbsent) && !errors.As(err, &refusal{}) {
		src, err = p.ask(ctx, u, measure) // the kept connection may have been closed
	}
	return src, err
}

func (p *prober) ask(ctx context.Context, u *base.URL, measure bool) (_ source, err error) {
	if p.c == nil {
		tcp := gortsplib.ProtocolTCP
		c := &gortsplib.Client{Scheme: u.Scheme, Host: u.Host, Protocol: &tcp, ReadTimeout: dialTimeout, WriteTimeout: dialTimeout,
			DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext}
		if err := c.Start(); err != nil {
			return source{}, fmt.Errorf("connecting to %s: %w", u.Host, err)
		}
		p.c = c
	}
	c := p.c
	stop := context.AfterFunc(ctx, c.Close)
	defer func() {
		if !stop() || err != nil {
			p.close()
		}
	}()
	desc, _, err := c.Describe(u)
	if err != nil {
		if bad := (liberrors.ErrClientBadStatusCode{}); errors.As(err, &bad) && bad.Code == base.StatusNotFound {
			return source{}, errAbsent
		}
		return source{}, fmt.Errorf("asking %s for its tracks: %w", u.Host, errors.New(gpac.Mask(err.Error())))
	}
	src, t, err := describe(desc)
	if err != nil || !measure {
		return src, err
	}
	played, err := t.measure(ctx, c, desc, &src)
	if err != nil {
		return source{}, fmt.Errorf("measuring the source: %w", err)
	}
	if played {
		p.close() // it is a reader now
	}
	return src, nil
}

// describe reads the tracks of an SDP. The first of each kind is taken.
func describe(desc *description.Session) (source, tracks, error) {
	var s source
	var t tracks
	var names []string
	for _, m := range desc.Medias {
		for _, f := range m.Formats {
			names = append(names, f.Codec())
			switch f := f.(type) {
			case *format.H264, *format.H265:
				if s.media.Video != nil {
					s.ignored = append(s.ignored, "a second video track ("+f.Codec()+"): one is used")
					continue
				}
				s.media.Video, t.video, t.videoFormat = videoFormat(f), m, f
				s.parameters = parameterSets(f)
			case *format.MPEG4Audio, *format.Opus, *format.MPEG1Audio:
				if s.media.Audio != nil {
					s.ignored = append(s.ignored, "a second audio track ("+f.Codec()+"): one is used")
					continue
				}
				s.media.Audio, t.audio, t.audioFormat = audioFormat(f), m, f
			default:
				switch m.Type {
				case description.MediaTypeVideo:
					return source{}, tracks{}, refusal{fmt.Sprintf("video codec %s is not supported: H264 and H265 are", f.Codec())}
				case description.MediaTypeAudio:
					return source{}, tracks{}, refusal{fmt.Sprintf("audio codec %s is not supported: AAC, Opus and MP3 are", f.Codec())}
				}
				s.ignored = append(s.ignored, fmt.Sprintf("track %s (%s): it is neither video nor audio", f.Codec(), m.Type))
			}
		}
	}
	if s.media.Video == nil && s.media.Audio == nil {
		return source{}, tracks{}, refusal{fmt.Sprintf("the source has neither video nor audio (tracks: %s)", strings.Join(names, ", "))}
	}
	return s, t, nil
}

func audioFormat(f format.Format) *stream.SourceAudio {
	switch f := f.(type) {
	case *format.MPEG4Audio:
		a := &stream.SourceAudio{Codec: "aac"}
		if f.Config != nil {
			a.SampleRate, a.Channels = cmp.Or(f.Config.ExtensionSampleRate, f.Config.SampleRate), f.Config.ChannelCount
		}
		return a
	case *format.Opus:
		return &stream.SourceAudio{Codec: "opus", SampleRate: 48000, Channels: f.ChannelCount}
	default:
		return &stream.SourceAudio{Codec: "mp3"} // rate and channels are in the frames
	}
}

func videoFormat(f format.Format) *stream.SourceVideo {
	switch f := f.(type) {
	case *format.H264:
		v := &stream.SourceVideo{Codec: "h264", SAR: stream.Rate{Num: 1, Den: 1}}
		sps, _ := f.SafeParams()
		readSPS264(sps, v)
		return v
	case *format.H265:
		v := &stream.SourceVideo{Codec: "h265", SAR: stream.Rate{Num: 1, Den: 1}}
		_, sps, _ := f.SafeParams()
		readSPS265(sps, v)
		return v
	}
	return nil
}

// parameterSets are those that f has, in the order in which a stream has them.
func parameterSets(f format.Format) [][]byte {
	var sets [][]byte
	switch f := f.(type) {
	case *format.H264:
		sps, pps := f.SafeParams()
		sets = [][]byte{sps, pps}
	case *format.H265:
		vps, sps, pps := f.SafeParams()
		sets = [][]byte{vps, sps, pps}
	}
	return slices.DeleteFunc(sets, func(b []byte) bool { return len(b) == 0 })
}

func readSPS264(b []byte, v *stream.SourceVideo) {
	var sps h264.SPS
	if len(b) == 0 || sps.Unmarshal(b) != nil {
		return
	}
	v.Width, v.Height = sps.Width(), sps.Height()
	if vui := sps.VUI; vui != nil {
		v.SAR = sampleAspect(vui.AspectRatioInfoPresentFlag, vui.AspectRatioIdc, vui.SarWidth, vui.SarHeight)
		if t := vui.TimingInfo; t != nil { // in fields: H.264 E.2.1
			v.FPS = plausible(int64(t.TimeScale), 2*int64(t.NumUnitsInTick))
		}
	}
}

func readSPS265(b []byte, v *stream.SourceVideo) {
	var sps h265.SPS
	if len(b) == 0 || sps.Unmarshal(b) != nil {
		return
	}
	v.Width, v.Height = sps.Width(), sps.Height()
	if vui := sps.VUI; vui != nil {
		v.SAR = sampleAspect(vui.AspectRatioInfoPresentFlag, vui.AspectRatioIdc, vui.SarWidth, vui.SarHeight)
		if t := vui.TimingInfo; t != nil {
			v.FPS = plausible(int64(t.TimeScale), int64(t.NumUnitsInTick))
		}
	}
}

// sampleAspect reads aspect_ratio_idc, H.264 table E-1, the same in H.265.
func sampleAspect(present bool, idc uint8, w, h uint16) stream.Rate {
	table := [...][2]int64{{1, 1}, {1, 1}, {12, 11}, {10, 11}, {16, 11}, {40, 33}, {24, 11}, {20, 11}, {32, 11}, {80, 33},
		{18, 11}, {15, 11}, {64, 33}, {160, 99}, {4, 3}, {3, 2}, {2, 1}}
	switch {
	case !present:
	case idc == 255 && w > 0 && h > 0:
		return stream.Rate{Num: int64(w), Den: int64(h)}
	case int(idc) < len(table):
		return stream.Rate{Num: table[idc][0], Den: table[idc][1]}
	}
	return stream.Rate{Num: 1, Den: 1}
}

// plausible returns num/den reduced, or zero when it can't be a frame rate: some
// encoders write their time base there.
func plausible(num, den int64) stream.Rate {
	if num <= 0 || den <= 0 || num > 130*den || num < den {
		return stream.Rate{}
	}
	a, b := num, den
	for b != 0 {
		a, b = b, a%b
	}
	return stream.Rate{Num: num / a, Den: den / a}
}
