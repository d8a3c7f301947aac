package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// reportTimeout bounds one report; the next one says all of it again.
const reportTimeout = 2 * time.Second

// errAway says that the api gave no answer that settles the question.
var errAway = errors.New("the api is away")

// The bodies of the api's internal part, as services/api/openapi.yaml has them.
type (
	publishRequest struct {
		Stream   string `json:"stream"`
		Key      string `json:"key"`
		Node     string `json:"node"`
		Conn     string `json:"conn"`
		Protocol string `json:"protocol"`
		Remote   string `json:"remote,omitempty"`
		Takeover bool   `json:"takeover,omitempty"`
	}
	releaseRequest struct {
		Stream string `json:"stream"`
		Node   string `json:"node"`
		Conn   string `json:"conn"`
	}
	report struct {
		Node  string       `json:"node"`
		Boot  string       `json:"boot"`
		RTMP  string       `json:"rtmp"`
		RTSP  string       `json:"rtsp"`
		Time  time.Time    `json:"time"`
		Paths []reportPath `json:"paths"`
	}
	reportPath struct {
		Stream        string     `json:"stream"`
		Session       string     `json:"session"`
		Protocol      string     `json:"protocol"`
		Remote        string     `json:"remote"`
		Ready         bool       `json:"ready"`
		ReadySince    *time.Time `json:"ready_since,omitempty"`
		Tracks        []string   `json:"tracks"`
		BytesReceived uint64     `json:"bytes_received"`
	}
	reportReply struct {
		Kick []string `json:"kick"`
	}
	problem struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
		Reason string `json:"reason"`
	}
)

// apiClient speaks to the api's internal part.
type apiClient struct {
	base, token string
	patience    time.Duration
	http        *http.Client

	mu sync.Mutex
	// slowUntil is set after a question went unanswered: mediamtx stands still
	// during each, so for a while the api counts as away without being asked.
	slowUntil time.Time
}

func newAPIClient(base, token string, patience time.Duration) *apiClient {
	return &apiClient{
		base: strings.TrimRight(base, "/"), token: token, patience: patience,
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute}},
	}
}

// publish asks whether the publisher may publish. The error is errAway, or a
// refusal that is stream.ErrBusy, ErrBadKey, ErrDisabled, ErrDeleted, ErrNotFound
// or ErrInvalid.
func (c *apiClient) publish(ctx context.Context, r publishRequest) error {
	c.mu.Lock()
	slow := time.Now().Before(c.slowUntil)
	c.mu.Unlock()
	if slow {
		return fmt.Errorf("%w: it did not answer a moment ago", errAway)
	}
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	status, body, err := c.do(ctx, http.MethodPost, "/internal/v1/ingest/publish", r)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			c.mu.Lock()
			c.slowUntil = time.Now().Add(2 * c.patience)
			c.mu.Unlock()
		}
		return fmt.Errorf("%w: %w", errAway, err)
	}
	if status/100 == 2 {
		return nil
	}
	var p problem
	_ = json.Unmarshal(body, &p) // a body that is no problem document has no reason
	switch {
	case p.Reason == "busy" || status == http.StatusConflict:
		return stream.ErrBusy
	case p.Reason == "bad_key":
		return stream.ErrBadKey
	case p.Reason == "disabled":
		return stream.ErrDisabled
	case p.Reason == "deleted_stream":
		return stream.ErrDeleted
	case p.Reason == "unknown_stream" || status == http.StatusNotFound:
		return stream.ErrNotFound
	case status == http.StatusForbidden:
		return fmt.Errorf("%s: %w", p.Title, stream.ErrBadKey)
	case status == http.StatusBadRequest || status == http.StatusUnprocessableEntity:
		return fmt.Errorf("%s: %w", p.Detail, stream.ErrInvalid)
	}
	return fmt.Errorf("%w: status %d %s", errAway, status, p.Title)
}

// report sends everything and returns the streams to disconnect.
func (c *apiClient) report(ctx context.Context, r report) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	status, body, err := c.do(ctx, http.MethodPut, "/internal/v1/ingest/nodes/"+url.PathEscape(r.Node), r)
	if err != nil {
		return nil, fmt.Errorf("reporting: %w", err)
	}
	if status/100 != 2 {
		var p problem
		_ = json.Unmarshal(body, &p) // as above
		return nil, fmt.Errorf("reporting: status %d %s %s", status, p.Title, p.Detail)
	}
	var reply reportReply
	if len(body) > 0 {
		if err := json.Unmarshal(body, &reply); err != nil {
			return nil, fmt.Errorf("reporting: %w", err)
		}
	}
	return reply.Kick, nil
}

// release gives a claim back. It is only a courtesy: claims expire.
func (c *apiClient) release(ctx context.Context, r releaseRequest) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	status, _, err := c.do(ctx, http.MethodPost, "/internal/v1/ingest/release", r)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		return fmt.Errorf("releasing the claim on %s: %w", r.Stream, err)
	}
	return nil
}

// refused tells of a publisher that was refused here for the lack of a key: the
// question of publish, which the api refuses too. It is no auth call: however
// long it takes, the api does not count as slow for those.
func (c *apiClient) refused(ctx context.Context, r publishRequest) error {
	r.Key = ""
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	status, _, err := c.do(ctx, http.MethodPost, "/internal/v1/ingest/publish", r)
	if err == nil && status != http.StatusForbidden {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		return fmt.Errorf("telling of a refusal of %s: %w", r.Stream, err)
	}
	return nil
}

func (c *apiClient) do(ctx context.Context, method, path string, in any) (int, []byte, error) {
	b, err := json.Marshal(in)
	if err != nil {
		return 0, nil, fmt.Errorf("encoding: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(b))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	out, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return 0, nil, err
	}
	return res.StatusCode, out, nil
}
