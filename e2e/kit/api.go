package kit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// API is a client of the management API, written against openapi.yaml by hand
// so that it doesn't share the product's mistakes.
type API struct {
	Base  string
	Token string
	HTTP  *http.Client
}

// NewAPI returns a client.
func NewAPI(base, token string) *API {
	return &API{Base: base, Token: token, HTTP: &http.Client{Timeout: 15 * time.Second}}
}

// Problem is an RFC 9457 document.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Errors []struct {
		Field   string `json:"field"`
		Message string `json:"message"`
	} `json:"errors"`
}

// Error makes a Problem an error.
func (p *Problem) Error() string {
	return fmt.Sprintf("%d %s: %s %v", p.Status, p.Title, p.Detail, p.Errors)
}

// Answer is a whole HTTP answer.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Raw sends a request with the token and returns whatever comes back.
func (a *API) Raw(method, path string, body []byte, header http.Header) (Answer, error) {
	req, err := http.NewRequest(method, a.Base+path, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+a.Token)
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := a.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return Answer{Status: resp.StatusCode, Header: resp.Header, Body: b}, err
}

func (a *API) call(method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	ans, err := a.Raw(method, path, body, nil)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if ans.Status >= 300 {
		p := &Problem{Status: ans.Status}
		if json.Unmarshal(ans.Body, p) != nil {
			p.Detail = string(ans.Body)
		}
		return fmt.Errorf("%s %s: %w", method, path, p)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(ans.Body, out)
}

// StreamSpec is the body that creates a stream.
type StreamSpec struct {
	ID       string  `json:"id"`
	Name     string  `json:"name,omitempty"`
	Profile  string  `json:"profile,omitempty"`
	Disabled bool    `json:"disabled,omitempty"`
	Grace    float64 `json:"grace_seconds,omitempty"`
	HoldBack float64 `json:"hold_back_seconds,omitempty"`
	Window   float64 `json:"window_seconds,omitempty"`
	// Require and Prefer are rules such as device=gpu.
	Require []string `json:"require,omitempty"`
	Prefer  []string `json:"prefer,omitempty"`
}

// CreateStream creates a stream and returns its key.
func (a *API) CreateStream(s StreamSpec) (string, error) {
	var out struct {
		Key string `json:"key"`
	}
	err := a.call("POST", "/v1/streams", s, &out)
	return out.Key, err
}

// DeleteStream deletes a stream.
func (a *API) DeleteStream(id string) error {
	return a.call("DELETE", "/v1/streams/"+url.PathEscape(id), nil, nil)
}

// PatchStream changes some of a stream's settings.
func (a *API) PatchStream(id string, fields map[string]any) error {
	return a.call("PATCH", "/v1/streams/"+url.PathEscape(id), fields, nil)
}

// Rung is one video rendition of a ProfileSpec.
type Rung struct {
	Name     string  `json:"name"`
	Codec    string  `json:"codec,omitempty"`
	Width    int     `json:"width"`
	Height   int     `json:"height"`
	FPS      float64 `json:"fps,omitempty"`
	Bitrate  int64   `json:"bitrate"`
	Keyframe float64 `json:"keyframe_seconds,omitempty"`
	Preset   string  `json:"preset,omitempty"`
}

// Sound is one audio rendition of a ProfileSpec.
type Sound struct {
	Name     string `json:"name"`
	Codec    string `json:"codec,omitempty"`
	Bitrate  int64  `json:"bitrate"`
	Channels int    `json:"channels,omitempty"`
}

// ProfileSpec is the body that makes a profile.
type ProfileSpec struct {
	Segment float64 `json:"segment_seconds,omitempty"`
	Video   []Rung  `json:"video,omitempty"`
	Audio   []Sound `json:"audio,omitempty"`
}

// SmallLadder is two rungs and one sound, light enough for two cores.
func SmallLadder() ProfileSpec {
	return ProfileSpec{Segment: 2,
		Video: []Rung{
			{Name: "360p", Width: 640, Height: 360, Bitrate: 600_000, Preset: "ultrafast"},
			{Name: "180p", Width: 320, Height: 180, Bitrate: 200_000, Preset: "ultrafast"},
		},
		Audio: []Sound{{Name: "stereo", Bitrate: 96_000, Channels: 2}}}
}

// PutProfile creates or replaces a profile.
func (a *API) PutProfile(name string, p ProfileSpec) error {
	return a.call("PUT", "/v1/profiles/"+url.PathEscape(name), p, nil)
}

// StreamStatus is the part of a stream's status that the tests read.
type StreamStatus struct {
	State   string `json:"state"`
	Session *struct {
		ID       string   `json:"id"`
		Protocol string   `json:"protocol"`
		Tracks   []string `json:"tracks"`
		// StartedAt is when mediamtx called the publisher ready.
		StartedAt time.Time `json:"started_at"`
	} `json:"session"`
	Broadcast *struct {
		ID    string `json:"id"`
		State string `json:"state"`
		// Reason says why it waits.
		Reason string `json:"reason"`
	} `json:"broadcast"`
	Placement *struct {
		Epoch  uint64 `json:"epoch"`
		Worker string `json:"worker"`
		Device string `json:"device"`
		State  string `json:"state"`
	} `json:"placement"`
	Run *struct {
		ID       string `json:"id"`
		State    string `json:"state"`
		Restarts int    `json:"restarts"`
		Device   string `json:"device"`
	} `json:"run"`
	Renditions []struct {
		Name    string  `json:"name"`
		FPS     float64 `json:"fps"`
		Bitrate int64   `json:"bitrate"`
	} `json:"renditions"`
	LastError string `json:"last_error"`
}

// Status returns what a stream is doing.
func (a *API) Status(stream string) (StreamStatus, error) {
	var s StreamStatus
	err := a.call("GET", "/v1/streams/"+url.PathEscape(stream)+"/status", nil, &s)
	return s, err
}

// Event is one entry of a stream's history.
type Event struct {
	Type    string `json:"type"`
	Level   string `json:"level"`
	Message string `json:"message"`
}

// Events returns the first 200 events of a stream.
func (a *API) Events(stream string) ([]Event, error) {
	var page struct {
		Items []Event `json:"items"`
	}
	err := a.call("GET", "/v1/streams/"+url.PathEscape(stream)+"/events?limit=200", nil, &page)
	return page.Items, err
}

// FindEvent returns nil when stream has an event whose type or message
// contains each of the words, in any case.
func (a *API) FindEvent(stream string, words ...string) error {
	events, err := a.Events(stream)
	if err != nil {
		return err
	}
	for _, e := range events {
		text, all := strings.ToLower(e.Type+" "+e.Message), true
		for _, w := range words {
			all = all && strings.Contains(text, strings.ToLower(w))
		}
		if all {
			return nil
		}
	}
	return fmt.Errorf("no event of %s says %q; its events: %v", stream, words, events)
}

// Worker is the part of a worker's report that the tests read.
type Worker struct {
	ID      string   `json:"id"`
	Ready   bool     `json:"ready"`
	Reason  string   `json:"reason"`
	Origin  string   `json:"origin"`
	Version string   `json:"version"`
	Devices []Device `json:"devices"`
}

// Device is the part of a device's report that the tests read.
type Device struct {
	ID       string           `json:"id"`
	Usable   bool             `json:"usable"`
	Reason   string           `json:"reason"`
	Codecs   []string         `json:"codecs"`
	Reserved int64            `json:"reserved_px_s"`
	Streams  map[string]int64 `json:"streams"`
}

// Device returns a device of whatever worker.
func (a *API) Device(id string) (Device, error) {
	ws, err := a.Workers()
	for _, w := range ws {
		for _, d := range w.Devices {
			if d.ID == id {
				return d, nil
			}
		}
	}
	if err == nil {
		err = fmt.Errorf("no worker has a device %s: %+v", id, ws)
	}
	return Device{}, err
}

// Workers lists the workers.
func (a *API) Workers() ([]Worker, error) {
	var page struct {
		Items []Worker `json:"items"`
	}
	err := a.call("GET", "/v1/workers", nil, &page)
	return page.Items, err
}

// Reserved returns the pixels per second reserved for stream on all devices.
func (a *API) Reserved(stream string) (int64, error) {
	ws, err := a.Workers()
	var sum int64
	for _, w := range ws {
		for _, d := range w.Devices {
			sum += d.Streams[stream]
		}
	}
	return sum, err
}
