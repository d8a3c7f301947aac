package api

import (
	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Defaults of a profile's fields that a request leaves out.
const (
	defaultSegment  = 2
	defaultVideo    = "h264"
	defaultPreset   = "veryfast"
	defaultAudio    = "aac"
	defaultChannels = 2
)

func toStream(s stream.Stream) wire.Stream {
	return wire.Stream{
		ID: s.ID, Name: s.Name, Profile: s.Profile, Disabled: s.Disabled,
		GraceSeconds: float64(s.Grace), HoldBackSeconds: float64(s.HoldBack), WindowSeconds: float64(s.Window),
		Priority: s.Priority, Require: toRules(s.Require), Prefer: toRules(s.Prefer), Degrade: s.Degrade,
		CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt, Version: s.Version,
	}
}

func toStreamWithKey(s stream.Stream, key string) wire.StreamWithKey {
	w := toStream(s)
	return wire.StreamWithKey{
		ID: w.ID, Name: w.Name, Profile: w.Profile, Disabled: w.Disabled,
		GraceSeconds: w.GraceSeconds, HoldBackSeconds: w.HoldBackSeconds, WindowSeconds: w.WindowSeconds,
		Priority: w.Priority, Require: w.Require, Prefer: w.Prefer, Degrade: w.Degrade,
		CreatedAt: w.CreatedAt, UpdatedAt: w.UpdatedAt, Version: w.Version, Key: key,
	}
}

// newStream is a stream with every setting at its default.
func newStream(id string) stream.Stream {
	return stream.Stream{
		ID: id, Name: id, Profile: stream.DefaultProfile,
		Grace:    stream.Seconds(stream.DefaultGrace.Seconds()),
		HoldBack: stream.Seconds(stream.DefaultHoldBack.Seconds()),
		Window:   stream.Seconds(stream.DefaultWindow.Seconds()),
		Priority: stream.DefaultPriority,
	}
}

func fromStreamCreate(c wire.StreamCreate) stream.Stream {
	return applyUpdate(newStream(c.ID), wire.StreamUpdate{
		Name: c.Name, Profile: c.Profile, Disabled: c.Disabled,
		GraceSeconds: c.GraceSeconds, HoldBackSeconds: c.HoldBackSeconds, WindowSeconds: c.WindowSeconds,
		Priority: c.Priority, Require: c.Require, Prefer: c.Prefer, Degrade: c.Degrade,
	})
}

func applyUpdate(s stream.Stream, u wire.StreamUpdate) stream.Stream {
	set(&s.Name, u.Name)
	set(&s.Profile, u.Profile)
	set(&s.Disabled, u.Disabled)
	setSeconds(&s.Grace, u.GraceSeconds)
	setSeconds(&s.HoldBack, u.HoldBackSeconds)
	setSeconds(&s.Window, u.WindowSeconds)
	set(&s.Priority, u.Priority)
	set(&s.Degrade, u.Degrade)
	if u.Require != nil {
		s.Require = fromRules(*u.Require)
	}
	if u.Prefer != nil {
		s.Prefer = fromRules(*u.Prefer)
	}
	return s
}

func toRules(rules []stream.Rule) []wire.Rule {
	out := make([]wire.Rule, len(rules))
	for i, r := range rules {
		out[i] = string(r)
	}
	return out
}

func fromRules(rules []wire.Rule) []stream.Rule {
	var out []stream.Rule
	for _, r := range rules {
		out = append(out, stream.Rule(r))
	}
	return out
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func setSeconds(to *stream.Seconds, from *float64) {
	if from != nil {
		*to = stream.Seconds(*from)
	}
}

func toProfile(p stream.Profile) wire.Profile {
	out := wire.Profile{
		Name: p.Name, SegmentSeconds: float64(p.Segment), BuiltIn: p.BuiltIn, Version: p.Version,
		Video: make([]wire.VideoRendition, 0, len(p.Video)), Audio: make([]wire.AudioRendition, 0, len(p.Audio)),
	}
	for _, v := range p.Video {
		keyframe := float64(v.Keyframe)
		out.Video = append(out.Video, wire.VideoRendition{
			Name: v.Name, Codec: &v.Codec, Width: v.Width, Height: v.Height, Fps: &v.FPS,
			Bitrate: v.Bitrate, KeyframeSeconds: &keyframe, Preset: &v.Preset,
		})
	}
	for _, a := range p.Audio {
		out.Audio = append(out.Audio, wire.AudioRendition{
			Name: a.Name, Codec: &a.Codec, Bitrate: a.Bitrate, Channels: &a.Channels,
		})
	}
	return out
}

func fromProfileSpec(name string, s wire.ProfileSpec) stream.Profile {
	p := stream.Profile{Name: name, Segment: defaultSegment}
	setSeconds(&p.Segment, s.SegmentSeconds)
	for _, v := range s.Video {
		r := stream.VideoRendition{
			Name: v.Name, Codec: defaultVideo, Width: v.Width, Height: v.Height,
			Bitrate: v.Bitrate, Keyframe: p.Segment, Preset: defaultPreset,
		}
		set(&r.Codec, v.Codec)
		set(&r.FPS, v.Fps)
		setSeconds(&r.Keyframe, v.KeyframeSeconds)
		set(&r.Preset, v.Preset)
		p.Video = append(p.Video, r)
	}
	for _, a := range s.Audio {
		r := stream.AudioRendition{Name: a.Name, Codec: defaultAudio, Bitrate: a.Bitrate, Channels: defaultChannels}
		set(&r.Codec, a.Codec)
		set(&r.Channels, a.Channels)
		p.Audio = append(p.Audio, r)
	}
	return p
}

func toEvent(e stream.Event) wire.Event {
	return wire.Event{ID: e.ID, Stream: e.Stream, Time: e.Time, Type: e.Type, Level: wire.EventLevel(e.Level), Message: e.Message}
}

func toSession(s stream.Session) *wire.Session {
	return &wire.Session{
		ID: s.ID, Node: s.Node, Protocol: s.Protocol, Remote: nonZero(s.Remote),
		Tracks: nonNil(s.Tracks), StartedAt: s.StartedAt,
	}
}

func toBroadcast(b stream.Broadcast) *wire.Broadcast {
	return &wire.Broadcast{
		ID: b.ID, State: wire.BroadcastState(b.State), StartedAt: b.StartedAt, EndedAt: b.EndedAt,
		WaitingSince: b.WaitingSince, Reason: nonZero(b.Reason),
	}
}

func toPlacement(p stream.Placement) *wire.Placement {
	return &wire.Placement{
		Broadcast: p.Broadcast, Epoch: p.Epoch, Worker: p.Worker, Device: p.Device, PricePxS: p.Price,
		Reserved: toReservations(p.Reserved), Dropped: renditionNames(p.Dropped), Priority: p.Priority,
		State: wire.PlacementState(p.State), Profile: p.Profile.Name, CommittedAt: p.CommittedAt,
	}
}

func toReservations(list []stream.Reservation) []wire.Reservation {
	out := make([]wire.Reservation, len(list))
	for i, r := range list {
		out[i] = wire.Reservation{Resource: r.Resource, Amount: r.Amount, Unit: capacity.Unit(r.Resource)}
	}
	return out
}

func renditionNames(list []stream.VideoRendition) []string {
	names := make([]string, len(list))
	for i, v := range list {
		names[i] = v.Name
	}
	return names
}

func toRunStatus(s stream.RunStatus) *wire.RunStatus {
	return &wire.RunStatus{
		ID: stream.RunID{Epoch: s.Epoch, Run: s.Run}.String(), Epoch: s.Epoch, Run: s.Run,
		State: wire.RunStatusState(s.State), Restarts: s.Restarts, Device: nonZero(s.Device), UpdatedAt: s.UpdatedAt,
	}
}

func toRendition(r stream.RenditionStatus) wire.RenditionStatus {
	return wire.RenditionStatus{
		Name: r.Name, Codec: r.Codec, Width: nonZero(r.Width), Height: nonZero(r.Height),
		Fps: nonZero(r.FPS), Bitrate: r.Bitrate,
	}
}

func fromIngestReport(r wire.IngestReport) store.IngestReport {
	out := store.IngestReport{Node: r.Node, Boot: r.Boot, RTMP: r.Rtmp, RTSP: r.Rtsp, Time: r.Time}
	for _, p := range r.Paths {
		path := store.IngestPath{
			Stream: p.Stream, Session: p.Session, Protocol: p.Protocol, Remote: p.Remote,
			Ready: p.Ready, Tracks: p.Tracks, BytesReceived: p.BytesReceived,
		}
		set(&path.ReadySince, p.ReadySince)
		out.Paths = append(out.Paths, path)
	}
	return out
}

// nonZero is nil for a value that is not known.
func nonZero[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// nonNil keeps a list from becoming null in JSON.
func nonNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
