// Package stream holds Dionysia's domain: streams, profiles, sessions,
// broadcasts, placements, runs and the segments they produce. It imports no
// other package of Dionysia, does no I/O and reads no clock.
package stream

import (
	"errors"
	"fmt"
	"time"
)

// Sentinel errors. Adapters wrap them with %w; services/api maps each to one
// HTTP status.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("already exists")
	ErrConflict = errors.New("conflict")        // a compare-and-set lost
	ErrInvalid  = errors.New("invalid")         // see FieldErrors
	ErrDisabled = errors.New("stream disabled") // known, but may not be published
	ErrBadKey   = errors.New("wrong stream key")
	ErrBusy     = errors.New("another publisher is sending")
	ErrFenced   = errors.New("fenced: a higher epoch exists")
	ErrNoRoom   = errors.New("no capacity") // a commit would overbook a device
	ErrInUse    = errors.New("in use")      // e.g. a profile that streams refer to
)

// ErrDeleted is the ErrNotFound of a stream that somebody has deleted. A stream that
// is not found without it never was, or was lost with Redis state: what goes on of
// it is left alone until state says more.
var ErrDeleted = fmt.Errorf("deleted: %w", ErrNotFound)

// DeletedError is the ErrDeleted that tells when, to a second, by the store's clock.
type DeletedError struct {
	Stream string
	At     time.Time
}

func (e *DeletedError) Error() string { return fmt.Sprintf("stream %q: %v", e.Stream, ErrDeleted) }

func (e *DeletedError) Unwrap() error { return ErrDeleted }

// deletionSlack is more than clocks differ, and than lies between letting a publisher
// in and its being ready.
const deletionSlack = time.Minute

// Deleted reports whether err is the ErrDeleted of a stream that was there at the time
// there; the zero time is one that is not known. One whose deletion lies well before it
// was deleted, created again, and then lost, by a copy of state from in between.
func Deleted(err error, there time.Time) bool {
	var d *DeletedError
	if errors.As(err, &d) && there.Sub(d.At) > deletionSlack {
		return false
	}
	return errors.Is(err, ErrDeleted)
}

// Lost reports whether err is the ErrNotFound of a stream that was there at the time
// there (see Deleted), and that nobody has deleted since: it was lost with Redis state.
func Lost(err error, there time.Time) bool {
	return errors.Is(err, ErrNotFound) && !Deleted(err, there)
}

// EpochMemory is how long an epoch is remembered of which nothing runs any more: longer
// than CDNs may keep a segment whose URL names it, which is what must not get another
// content when state goes back in time.
const EpochMemory = 25 * time.Hour

// Defaults and ranges of a stream's settings.
const (
	DefaultProfile  = "720p"
	DefaultGrace    = 15 * time.Second
	DefaultHoldBack = 12 * time.Second
	DefaultWindow   = 60 * time.Second
	MinWindow       = 30 * time.Second
	MaxWindow       = 10 * time.Minute
	MinHoldBack     = 6 * time.Second
	MaxHoldBack     = 30 * time.Second
	MaxGrace        = 5 * time.Minute
	DefaultPriority = 50
	MaxPriority     = 100
	MaxRules        = 16 // of Require, and of Prefer
)

// Stream is a channel that an operator created. Its URLs never change.
type Stream struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Profile  string `json:"profile"`
	Disabled bool   `json:"disabled"`
	// Grace joins sessions into one broadcast: a publisher that returns within
	// it continues the same playlists. 0 s to MaxGrace.
	Grace Seconds `json:"grace_seconds"`
	// HoldBack is how far behind the live edge players stay (EXT-X-SERVER-CONTROL
	// HOLD-BACK, suggestedPresentationDelay).
	HoldBack Seconds `json:"hold_back_seconds"`
	// Window is how much of the past the playlists list, MinWindow to MaxWindow.
	Window Seconds `json:"window_seconds"`
	// Priority, 0 to MaxPriority, orders the streams that wait for capacity; the
	// higher goes first.
	Priority int `json:"priority"`
	// Require and Prefer are rules of where the stream is transcoded; see Rule.
	// Every one of Require must hold; of Prefer as many as can, the first weighing
	// most.
	Require []Rule `json:"require,omitempty"`
	Prefer  []Rule `json:"prefer,omitempty"`
	// Degrade lets the stream start without its top rungs when there is no room
	// for all of them; they come when there is.
	Degrade   bool      `json:"degrade,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	// Version counts the updates; a conditional update names the one it read.
	Version int64 `json:"version"`
}

// Seconds is a duration that JSON carries as a number of seconds.
type Seconds float64

// Duration converts s.
func (s Seconds) Duration() time.Duration { return time.Duration(float64(s) * float64(time.Second)) }

// Source says where a worker pulls a session from. The URLs carry no token;
// the worker adds its own read token as the query parameter "token".
type Source struct {
	Node    string `json:"node"`    // ingest node id
	Session string `json:"session"` // session id: one publish
	// Protocol is what it is published by: rtmp, rtsp, srt or webrtc.
	Protocol string `json:"protocol,omitempty"`
	RTMP     string `json:"rtmp"` // rtmp://host:port/live/<stream>
	RTSP     string `json:"rtsp"` // rtsp://host:port/live/<stream>
	// Tracks are mediamtx's codec names, such as "H264" and "MPEG-4 Audio".
	Tracks []string `json:"tracks"`
}

// Session is one publish of a stream, from connect to disconnect.
type Session struct {
	ID        string    `json:"id"`
	Stream    string    `json:"stream"`
	Node      string    `json:"node"`
	Protocol  string    `json:"protocol"` // rtmp, rtsp, srt, webrtc
	Remote    string    `json:"remote,omitempty"`
	Tracks    []string  `json:"tracks"`
	StartedAt time.Time `json:"started_at"`
}

// BroadcastState is where a broadcast stands.
//
//	live ⇄ grace → ended
type BroadcastState string

// The states of a broadcast.
const (
	BroadcastLive  BroadcastState = "live"
	BroadcastGrace BroadcastState = "grace" // no publisher; it may still return
	BroadcastEnded BroadcastState = "ended"
)

// Broadcast is sessions joined by the stream's grace. Only its end ends the
// playlists.
type Broadcast struct {
	ID        string         `json:"id"`
	Stream    string         `json:"stream"`
	State     BroadcastState `json:"state"`
	StartedAt time.Time      `json:"started_at"`
	EndedAt   *time.Time     `json:"ended_at,omitempty"`
	Session   *Session       `json:"session,omitempty"` // the current or last one
	// Reason says why the broadcast is not placed, with the numbers; empty when it is.
	Reason string `json:"reason,omitempty"`
	// WaitingSince is when the broadcast began to wait for capacity; nil when it
	// does not. Of equal priority, the one that waits longest goes first.
	WaitingSince *time.Time `json:"waiting_since,omitempty"`
}

// PlacementState is where a placement stands.
//
//	placed → ending → ended
type PlacementState string

// The states of a placement. Whether GPAC runs is the RunStatus's to say.
const (
	PlacementPlaced PlacementState = "placed" // the worker should run it
	PlacementEnding PlacementState = "ending" // the broadcast is over: stop, close the playlists
	PlacementEnded  PlacementState = "ended"  // reservation returned; the origin still serves the window
)

// Placement binds a broadcast to a worker's device at an epoch.
type Placement struct {
	Stream    string `json:"stream"`
	Broadcast string `json:"broadcast"`
	Epoch     uint64 `json:"epoch"`
	Worker    string `json:"worker"` // also the origin id: a lowercase DNS label
	Device    string `json:"device"`
	Boot      string `json:"boot"`  // the worker's boot id when it was placed
	Price     int64  `json:"price"` // reserved pixels per second of Device
	// Reserved is all that is reserved for it at its worker, Device first.
	Reserved []Reservation  `json:"reserved"`
	State    PlacementState `json:"state"`
	Source   Source         `json:"source"`
	Profile  Profile        `json:"profile"` // a snapshot
	// Dropped are the profile's top rungs that were left out for want of room
	// (Stream.Degrade), in the profile's order. Profile does not hold them.
	Dropped  []VideoRendition `json:"dropped,omitempty"`
	Priority int              `json:"priority"`
	// Require holds the stream's rules, which its worker keeps to when a device fails.
	Require  []Rule  `json:"require,omitempty"`
	Grace    Seconds `json:"grace_seconds"`
	HoldBack Seconds `json:"hold_back_seconds"`
	Window   Seconds `json:"window_seconds"`
	// BroadcastStart is DASH's availabilityStartTime base and the bound from
	// which a successor without a tail computes a safe number.
	BroadcastStart time.Time `json:"broadcast_start"`
	CommittedAt    time.Time `json:"committed_at"`
	// MovedAt is when its worker last took it to another of its devices; zero when
	// it is where it was committed.
	MovedAt time.Time `json:"moved_at,omitzero"`
}

// RunState is what a worker says of a placement it holds.
type RunState string

// The states of a run as the worker reports them.
const (
	RunWaiting  RunState = "waiting"  // no source to pull yet
	RunStarting RunState = "starting" // GPAC started, nothing public yet
	RunRunning  RunState = "running"  // segments are being listed
	RunBackoff  RunState = "backoff"  // GPAC failed; waiting to start again
	RunRefused  RunState = "refused"  // the source can't be transcoded; LastError says why
	RunStopped  RunState = "stopped"
)

// The refusals after which another worker may take the source.
const (
	RefusedNoRoom = "no_room" // no device of the worker takes what it really costs
	RefusedDevice = "device"  // no device of the worker has the codecs
)

// RunStatus is a worker's report on one placement, kept in Redis live.
type RunStatus struct {
	Stream     string            `json:"stream"`
	Epoch      uint64            `json:"epoch"`
	Run        uint32            `json:"run"`
	State      RunState          `json:"state"`
	Restarts   int               `json:"restarts"`
	Renditions []RenditionStatus `json:"renditions"`
	LastError  string            `json:"last_error,omitempty"`
	// Refused says why State is refused, in a word that stays: source, profile,
	// RefusedDevice, RefusedNoRoom, pipeline.
	Refused string `json:"refused,omitempty"`
	// Media is what the source was found to be, and Session the one that was
	// probed; nil and "" while there is none.
	Media   *SourceMedia `json:"media,omitempty"`
	Session string       `json:"session,omitempty"`
	// Device is where the run encodes: the placement's, or the one that its
	// worker fell back to.
	Device    string    `json:"device,omitempty"`
	UpdatedAt time.Time `json:"updated_at"`
}

// RenditionStatus is what was measured of one rendition's newest segments.
type RenditionStatus struct {
	Name    string  `json:"name"`
	Codec   string  `json:"codec"`
	Width   int     `json:"width,omitempty"`
	Height  int     `json:"height,omitempty"`
	FPS     float64 `json:"fps,omitempty"`
	Bitrate int64   `json:"bitrate"` // bits per second
}

// Event is an entry of a stream's history, for operators.
type Event struct {
	ID      string    `json:"id"` // set by the store, ordered
	Stream  string    `json:"stream"`
	Time    time.Time `json:"time"`
	Type    string    `json:"type"`  // e.g. publish.refused, session.started, run.crashed
	Level   string    `json:"level"` // info, warn, error
	Message string    `json:"message"`
}
