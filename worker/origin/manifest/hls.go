package manifest

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/Eyevinn/hls-m3u8/m3u8"

	"github.com/dionysia-dev/dionysia/services/stream"
)

const (
	// hlsVersion 7 is what an EXT-X-MAP outside of an I-frame playlist and the
	// audio groups need (6), and what players of fMP4 expect.
	hlsVersion = 7
	// hlsPrecision is the number of decimals of EXTINF: exact for a time scale
	// of 1000, within half a microsecond for 90000.
	hlsPrecision = 6
	// audioGroup is the GROUP-ID of the audio renditions.
	audioGroup = "audio"
)

// Master returns the multivariant playlist: a variant for each video rendition
// of the broadcast's first run with the audio renditions as a group, or one for
// each audio rendition when there is no video.
func (p *Presentation) Master() ([]byte, error) {
	m := m3u8.NewMasterPlaylist()
	m.SetVersion(hlsVersion)
	m.SetIndependentSegments(true)
	run := p.latest()

	video, audio := p.variants(stream.Video), p.variants(stream.Audio)
	var alternatives []*m3u8.Alternative
	var audioCodecs []string
	var loudest rates // of the group: any of them may play beside a variant
	for i, a := range audio {
		made := current(run, a)
		r := p.measure(a)
		loudest.peak, loudest.average = max(loudest.peak, r.peak), max(loudest.average, r.average)
		if !slices.Contains(audioCodecs, made.Codec) {
			audioCodecs = append(audioCodecs, made.Codec)
		}
		alternatives = append(alternatives, &m3u8.Alternative{
			Type: "AUDIO", GroupId: audioGroup, Name: a.Name, Default: i == 0, Autoselect: true,
			Channels: &m3u8.Channels{Amount: made.Channels}, URI: mediaURI(a),
		})
	}
	for _, v := range video {
		made := current(run, v)
		r := p.measure(v)
		params := m3u8.VariantParams{
			Bandwidth:        clamp32(r.peak + loudest.peak),
			AverageBandwidth: clamp32(r.average + loudest.average),
			Codecs:           strings.Join(append([]string{made.Codec}, audioCodecs...), ","),
			Resolution:       fmt.Sprintf("%dx%d", made.Width, made.Height),
			FrameRate:        made.FPS.Float(),
		}
		if len(alternatives) > 0 {
			params.Audio, params.Alternatives = audioGroup, alternatives
		}
		m.Append(mediaURI(v), nil, params)
	}
	if len(video) == 0 {
		for _, a := range audio {
			r := p.measure(a)
			m.Append(mediaURI(a), nil, m3u8.VariantParams{
				Bandwidth: clamp32(r.peak), AverageBandwidth: clamp32(r.average), Codecs: current(run, a).Codec,
			})
		}
	}
	return m.Encode().Bytes(), nil
}

// Media returns the media playlist of the variant called name, nil when the
// broadcast has none of that name.
func (p *Presentation) Media(name string) ([]byte, error) {
	i := slices.IndexFunc(p.Variants, func(t stream.Track) bool { return t.Name == name })
	if i < 0 {
		return nil, nil
	}
	n := uint(len(p.Segments))
	m, err := m3u8.NewMediaPlaylist(n, max(n, 1))
	if err != nil {
		return nil, fmt.Errorf("making the playlist of %s: %w", name, err)
	}
	m.SetVersion(hlsVersion)
	m.SetIndependentSegments(true)
	m.SetTargetDuration(uint(p.Target))
	m.SetWritePrecision(hlsPrecision)
	hold := max(p.HoldBack.Seconds(), float64(3*p.Target))
	if err := m.SetServerControl(&m3u8.ServerControl{HoldBack: hold}); err != nil {
		return nil, fmt.Errorf("setting the hold-back of %s: %w", name, err)
	}
	if n > 0 {
		first := p.Segments[0]
		m.SeqNo = first.Number
		m.DiscontinuitySeq = first.DiscSeq
		if first.Discontinuity {
			// Its tag is still listed; the sequence counts those that left.
			m.DiscontinuitySeq--
		}
	}
	for k := range p.Segments {
		if err := m.AppendSegment(p.mediaSegment(&p.Segments[k], p.Variants[i])); err != nil {
			return nil, fmt.Errorf("listing number %d of %s: %w", p.Segments[k].Number, name, err)
		}
	}
	m.Closed = p.Ended
	return bytes.Clone(m.Encode().Bytes()), nil
}

func (p *Presentation) mediaSegment(s *stream.Segment, want stream.Track) *m3u8.MediaSegment {
	out := &m3u8.MediaSegment{
		Discontinuity:   s.Discontinuity,
		ProgramDateTime: s.ProgramDateTime.UTC().Round(time.Millisecond),
		Duration:        s.Duration.Seconds(),
	}
	track := Pick(p.Runs[s.Run], want)
	if track == nil {
		// The run has nothing of this kind: the number keeps its place.
		out.Gap = true
		out.URI = fmt.Sprintf("../seg/%s/%s/%d.m4s", s.Run, want.Name, s.Local)
		return out
	}
	if part, ok := s.Parts[track.Name]; ok && track.Timescale > 0 {
		out.Duration = float64(part.Duration) / float64(track.Timescale)
	}
	out.URI = fmt.Sprintf("../seg/%s/%s/%d.m4s", s.Run, track.Name, s.Local)
	out.Map = &m3u8.Map{URI: fmt.Sprintf("../seg/%s/%s/init.mp4", s.Run, track.Name)}
	return out
}

// current is variant v as the newest run makes it.
func current(run stream.Run, v stream.Track) stream.Track {
	if t := Pick(run, v); t != nil {
		return *t
	}
	return v
}

func mediaURI(t stream.Track) string { return t.Name + "/index.m3u8" }

func clamp32(v int64) uint32 { return uint32(min(max(v, 0), math.MaxUint32)) }
