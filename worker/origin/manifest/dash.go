package manifest

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/Eyevinn/dash-mpd/mpd"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// TimePath is where the router serves the time for DASH's UTCTiming.
const TimePath = "/time"

const (
	dashTime   = "2006-01-02T15:04:05.000Z"
	timeScheme = "urn:mpeg:dash:utc:http-iso:2014"
)

// MPD returns the DASH manifest: one Period for each run that has a listed
// segment, each starting at its predecessor's exact end.
//
// The clock of the players runs on during an outage and the media does not, so
// the delay and the depth of the window grow by the time lost so far.
func (p *Presentation) MPD() ([]byte, error) {
	m := mpd.NewMPD(mpd.DYNAMIC_TYPE)
	m.Profiles = mpd.PROFILE_LIVE
	m.AvailabilityStartTime = dateTime(p.Start)
	m.PublishTime = dateTime(p.Published)
	m.MinBufferTime = duration(p.Segment)
	m.MaxSegmentDuration = duration(p.longest())
	if p.Ended {
		m.Type = mpd.Ptr(mpd.STATIC_TYPE)
		m.MediaPresentationDuration = duration(p.end())
	} else {
		m.MinimumUpdatePeriod = duration(p.Segment)
		m.TimeShiftBufferDepth = duration(p.Window + p.Lost())
		m.SuggestedPresentationDelay = duration(p.HoldBack + p.Lost())
		m.UTCTimings = []*mpd.DescriptorType{mpd.NewDescriptor(timeScheme, TimePath, "")}
	}
	for from := 0; from < len(p.Segments); {
		to := from
		for to < len(p.Segments) && p.Segments[to].Run == p.Segments[from].Run {
			to++
		}
		run := p.Runs[p.Segments[from].Run]
		m.AppendPeriod(period(run, p.Segments[from:to]))
		from = to
	}
	var b bytes.Buffer
	if _, err := m.Write(&b, " ", true); err != nil {
		return nil, fmt.Errorf("writing the MPD: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func (p *Presentation) longest() time.Duration {
	d := p.Segment
	for i := range p.Segments {
		d = max(d, p.Segments[i].Duration)
	}
	return d
}

func (p *Presentation) end() time.Duration {
	if len(p.Segments) == 0 {
		return 0
	}
	s := p.Segments[len(p.Segments)-1]
	return s.Start + s.Duration
}

func period(run stream.Run, segments []stream.Segment) *mpd.Period {
	out := mpd.NewPeriod()
	out.Id = run.ID.String()
	out.Start = duration(run.Start)
	id := uint32(0)
	for _, group := range adaptationSets(run.Tracks) {
		id++
		set := mpd.NewAdaptationSet()
		set.Id = mpd.Ptr(id)
		set.ContentType = mpd.RFC6838ContentTypeType(group[0].Kind)
		set.SegmentAlignment = true
		set.StartWithSAP = 1
		set.MimeType = string(group[0].Kind) + "/mp4"
		if group[0].Kind == stream.Audio {
			set.Lang = "und"
		}
		var templates []*mpd.SegmentTemplateType
		for _, t := range group {
			set.AppendRepresentation(representation(t))
			templates = append(templates, template(run.ID, t, segments))
			set.MaxWidth = max(set.MaxWidth, uint32(t.Width))
			set.MaxHeight = max(set.MaxHeight, uint32(t.Height))
		}
		hoist(set, templates)
		out.AppendAdaptationSet(set)
	}
	return out
}

// adaptationSets groups tracks that a player may switch between: video of one
// codec, and audio of one codec, channel count and sample rate.
func adaptationSets(tracks []stream.Track) [][]stream.Track {
	type key struct {
		kind     stream.TrackKind
		codec    string
		channels int
		rate     int
	}
	var order []key
	groups := map[key][]stream.Track{}
	for _, t := range tracks {
		k := key{kind: t.Kind, codec: Family(t.Codec)}
		if t.Kind == stream.Audio {
			k = key{t.Kind, t.Codec, t.Channels, t.SampleRate}
		}
		if _, ok := groups[k]; !ok {
			order = append(order, k)
		}
		groups[k] = append(groups[k], t)
	}
	var out [][]stream.Track
	for _, kind := range []stream.TrackKind{stream.Video, stream.Audio} {
		for _, k := range order {
			if k.kind == kind {
				out = append(out, groups[k])
			}
		}
	}
	return out
}

func representation(t stream.Track) *mpd.RepresentationType {
	r := mpd.NewRepresentation()
	r.Id = t.Name
	r.Bandwidth = clamp32(t.Bandwidth)
	r.Codecs = t.Codec
	if t.Kind == stream.Video {
		r.Width, r.Height = uint32(t.Width), uint32(t.Height)
		r.Sar = "1:1"
		r.FrameRate = frameRate(t.FPS)
		return r
	}
	if t.SampleRate > 0 {
		r.AudioSamplingRate = mpd.Ptr(mpd.UIntVectorType(strconv.Itoa(t.SampleRate)))
	}
	if t.Channels > 0 {
		r.AudioChannelConfigurations = []*mpd.DescriptorType{
			mpd.NewDescriptor(mpd.AUDIO_CHANNEL_CONFIGURATION_MPEG_DASH, strconv.Itoa(t.Channels), "")}
	}
	return r
}

func frameRate(r stream.Rate) mpd.FrameRateType {
	switch {
	case r.IsZero():
		return ""
	case r.Den == 1:
		return mpd.FrameRateType(strconv.FormatInt(r.Num, 10))
	}
	return mpd.FrameRateType(fmt.Sprintf("%d/%d", r.Num, r.Den))
}

func template(run stream.RunID, t stream.Track, segments []stream.Segment) *mpd.SegmentTemplateType {
	st := mpd.NewSegmentTemplate()
	st.Initialization = fmt.Sprintf("seg/%s/$RepresentationID$/init.mp4", run)
	st.Media = fmt.Sprintf("seg/%s/$RepresentationID$/$Number$.m4s", run)
	st.SetTimescale(t.Timescale)
	st.StartNumber = mpd.Ptr(uint32(min(segments[0].Local, math.MaxUint32)))
	if t.TimeOffset > 0 {
		st.PresentationTimeOffset = mpd.Ptr(t.TimeOffset)
	}
	st.SegmentTimeline = timeline(t.Name, segments)
	return st
}

// timeline writes t only where it does not follow from the entry before.
func timeline(name string, segments []stream.Segment) *mpd.SegmentTimelineType {
	out := &mpd.SegmentTimelineType{}
	var next uint64
	for i := range segments {
		part := segments[i].Parts[name]
		last := len(out.S) - 1
		switch {
		case last >= 0 && part.Time == next && out.S[last].D == part.Duration:
			out.S[last].R++
		case last >= 0 && part.Time == next:
			out.S = append(out.S, &mpd.S{D: part.Duration})
		default:
			out.S = append(out.S, &mpd.S{T: mpd.Ptr(part.Time), D: part.Duration})
		}
		next = part.Time + part.Duration
	}
	return out
}

// hoist puts the template on the set when all its representations agree on it.
func hoist(set *mpd.AdaptationSetType, templates []*mpd.SegmentTemplateType) {
	for _, t := range templates[1:] {
		if !reflect.DeepEqual(t, templates[0]) {
			for i, r := range set.Representations {
				r.SegmentTemplate = templates[i]
			}
			return
		}
	}
	set.SegmentTemplate = templates[0]
}

func duration(d time.Duration) *mpd.Duration {
	return mpd.Ptr(mpd.Duration(d.Round(time.Millisecond)))
}

func dateTime(t time.Time) mpd.DateTime {
	return mpd.DateTime(t.UTC().Format(dashTime))
}
