package stream

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// RunID names one GPAC process: the placement's epoch and the count of the
// process within it. Its text form, e3r1, is part of segment URLs and is the
// name of the run's directory.
type RunID struct {
	Epoch uint64 `json:"epoch"`
	Run   uint32 `json:"run"`
}

// String returns the form e<epoch>r<run>.
func (r RunID) String() string { return fmt.Sprintf("e%dr%d", r.Epoch, r.Run) }

// ParseRunID parses the form that String returns and no other spelling of it.
func ParseRunID(s string) (RunID, error) {
	e, r, ok := strings.Cut(strings.TrimPrefix(s, "e"), "r")
	if ok && strings.HasPrefix(s, "e") {
		epoch, err1 := strconv.ParseUint(e, 10, 64)
		run, err2 := strconv.ParseUint(r, 10, 32)
		id := RunID{Epoch: epoch, Run: uint32(run)}
		if err1 == nil && err2 == nil && id.String() == s {
			return id, nil
		}
	}
	return RunID{}, fmt.Errorf("run id %q: %w", s, ErrInvalid)
}

// TrackKind tells video from audio.
type TrackKind string

// The kinds of tracks.
const (
	Video TrackKind = "video"
	Audio TrackKind = "audio"
)

// Track is one rendition as a run made it, measured from its init segment and
// media, not from what was asked for.
type Track struct {
	Name       string    `json:"name"` // the rendition's name; part of URLs
	Kind       TrackKind `json:"kind"`
	Codec      string    `json:"codec"` // RFC 6381, e.g. avc1.64001f
	Timescale  uint32    `json:"timescale"`
	Bandwidth  int64     `json:"bandwidth"`         // peak, bits per second
	AvgBitrate int64     `json:"average_bandwidth"` // bits per second
	Width      int       `json:"width,omitempty"`
	Height     int       `json:"height,omitempty"`
	FPS        Rate      `json:"fps,omitzero"`
	Channels   int       `json:"channels,omitempty"`
	SampleRate int       `json:"sample_rate,omitempty"`
	// TimeOffset is the media time, in Timescale, that the run starts at: DASH's
	// presentationTimeOffset. All tracks of a run hold the same seconds.
	TimeOffset uint64 `json:"pto"`
}

// Run is what the manifests need to know of a run.
type Run struct {
	ID        RunID     `json:"id"`
	Broadcast string    `json:"broadcast"`
	Origin    string    `json:"origin"`
	StartedAt time.Time `json:"started_at"`
	Tracks    []Track   `json:"tracks"`
	// Start is where the run begins in the broadcast's media time: the Start of
	// its first segment.
	Start time.Duration `json:"start"`
	// Target is the broadcast's EXT-X-TARGETDURATION in seconds; it never
	// changes within one.
	Target int `json:"target"`
	// Variants are the tracks of the broadcast's first run. They fix the set of
	// variant playlists, and each run hands them on to the next.
	Variants []Track `json:"variants"`
}

// Segment is one media sequence number over all renditions of a run: the tail
// entry that must be in Redis live before the number is listed.
type Segment struct {
	Number uint64 `json:"n"`     // per stream, across runs; never goes down within a broadcast or between them
	Run    RunID  `json:"run"`   // who made it
	Local  uint64 `json:"local"` // its number in the run's file names and URLs
	// Discontinuity is set on the first segment of a run that has a predecessor.
	Discontinuity bool `json:"disc,omitempty"`
	// DiscSeq counts the discontinuities up to and including this segment.
	DiscSeq uint64 `json:"dseq"`
	// ProgramDateTime is the wall-clock time of its first frame.
	ProgramDateTime time.Time `json:"pdt"`
	// Start is its media time since the broadcast's start. The first segment
	// starts when its first frame came; each later one starts at its
	// predecessor's end (within a run to the rounding of the media's time scale).
	Start time.Duration `json:"start"`
	// Duration is the video's (or, without video, the audio's) duration.
	Duration time.Duration `json:"dur"`
	// Parts is keyed by track name.
	Parts map[string]Part `json:"parts"`
}

// Part is one rendition's share of a Segment, in its track's timescale.
type Part struct {
	Time     uint64 `json:"t"` // earliest presentation time: tfdt and composition offset
	Duration uint64 `json:"d"` // from trun
	Size     int64  `json:"s"` // bytes
}

// Tail is what a successor needs to continue a broadcast's playlists.
type Tail struct {
	Broadcast string         `json:"broadcast"`
	Runs      map[string]Run `json:"runs"` // by RunID.String()
	Segments  []Segment      `json:"segments"`
	// Last is the highest number that the stream ever listed, in this broadcast
	// or an earlier one; 0 when unknown.
	Last  uint64 `json:"last"`
	Ended bool   `json:"ended"`
}

// Rate is a frame rate as an exact ratio; the zero value is unknown.
type Rate struct {
	Num int64 `json:"num"`
	Den int64 `json:"den"`
}

// IsZero reports whether the rate is unknown.
func (r Rate) IsZero() bool { return r.Num == 0 || r.Den == 0 }

// Float returns frames per second, 0 when unknown.
func (r Rate) Float() float64 {
	if r.IsZero() {
		return 0
	}
	return float64(r.Num) / float64(r.Den)
}
