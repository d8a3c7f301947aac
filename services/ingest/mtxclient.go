package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// mtxTimeout bounds a call of mediamtx's API. Its path list stands still while
// it waits for an auth answer, so this is above Config.APIPatience.
const mtxTimeout = 3 * time.Second

// all asks for a list on one page, so that it is one moment's: mediamtx sets no
// limit to a page.
const all = "?itemsPerPage=1000000"

// source is mediamtx's name for a publisher.
type source struct {
	// Type is rtmpConn, rtspSession, srtConn or webRTCSession; and rtspConn, in
	// the agent alone, for a publisher that has no session yet.
	Type string `json:"type"`
	ID   string `json:"id"`
}

// protocol is the word for the source's type in auth calls and in reports.
func (s source) protocol() string {
	switch s.Type {
	case "rtmpConn", "rtmpsConn":
		return "rtmp"
	case "rtspSession", "rtspsSession", rtspConnType:
		return "rtsp"
	case "srtConn":
		return "srt"
	case "webRTCSession":
		return "webrtc"
	}
	return s.Type
}

const rtspConnType = "rtspConn"

// resource is the API's collection that holds the source; "" when there is
// none.
func (s source) resource() string {
	if s.Type == rtspConnType {
		return "rtspconns"
	}
	switch s.protocol() {
	case "rtmp":
		return "rtmpconns"
	case "rtsp":
		return "rtspsessions"
	case "srt":
		return "srtconns"
	case "webrtc":
		return "webrtcsessions"
	}
	return ""
}

// sourceOf names a connection that auth was asked for.
func sourceOf(protocol, conn string) source {
	types := map[string]string{"rtmp": "rtmpConn", "rtsp": rtspConnType, "srt": "srtConn", "webrtc": "webRTCSession"}
	return source{Type: types[protocol], ID: conn}
}

// mtxClient speaks mediamtx's control API, v3.
type mtxClient struct {
	base, user, password string
	http                 *http.Client
}

func newMTXClient(base, user, password string) *mtxClient {
	return &mtxClient{
		base: strings.TrimRight(base, "/"), user: user, password: password,
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}},
	}
}

// statusError is an answer that is not 2xx.
type statusError struct {
	status int
	body   string
}

func (e *statusError) Error() string { return fmt.Sprintf("status %d: %s", e.status, e.body) }

// gone reports whether mediamtx does not know the source.
func gone(err error) bool {
	var se *statusError
	return errors.As(err, &se) && se.status == http.StatusNotFound
}

func (c *mtxClient) do(ctx context.Context, method, path string, out any) error {
	ctx, cancel := context.WithTimeout(ctx, mtxTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return fmt.Errorf("mediamtx: %w", err)
	}
	req.SetBasicAuth(c.user, c.password)
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("mediamtx: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 512))
		return fmt.Errorf("mediamtx: %s: %w", path, &statusError{res.StatusCode, strings.TrimSpace(string(b))})
	}
	if out == nil {
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("mediamtx: decoding %s: %w", path, err)
	}
	return nil
}

type mtxPath struct {
	Name          string     `json:"name"`
	Source        *source    `json:"source"`
	Ready         bool       `json:"ready"`
	ReadyTime     *time.Time `json:"readyTime"`
	Tracks        []string   `json:"tracks"`
	BytesReceived uint64     `json:"bytesReceived"`
}

// paths lists who publishes to live/<stream>. Conn is not known yet for RTSP,
// nor is Remote: see conn.
func (c *mtxClient) paths(ctx context.Context) ([]session, error) {
	var l struct {
		Items []mtxPath `json:"items"`
	}
	if err := c.do(ctx, http.MethodGet, "/v3/paths/list"+all, &l); err != nil {
		return nil, err
	}
	out := make([]session, 0, len(l.Items))
	for _, p := range l.Items {
		id, err := streamOf(p.Name)
		if err != nil || p.Source == nil {
			continue
		}
		s := session{
			Stream: id, Source: *p.Source, Conn: p.Source.ID, Protocol: p.Source.protocol(),
			Ready: p.Ready, Tracks: p.Tracks, Bytes: p.BytesReceived,
		}
		if p.ReadyTime != nil {
			s.ReadyAt = *p.ReadyTime
		}
		out = append(out, s)
	}
	return out, nil
}

// conn fetches what the path list does not say of a source: its address and,
// for RTSP, the connection that auth was asked for.
func (c *mtxClient) conn(ctx context.Context, s source) (conn, remote string, err error) {
	var one struct {
		RemoteAddr string `json:"remoteAddr"`
	}
	if s.resource() == "" {
		return s.ID, "", nil
	}
	if err := c.do(ctx, http.MethodGet, "/v3/"+s.resource()+"/get/"+url.PathEscape(s.ID), &one); err != nil {
		return s.ID, "", err
	}
	if s.protocol() != "rtsp" {
		return s.ID, one.RemoteAddr, nil
	}
	conns, err := c.rtspConns(ctx)
	for _, rc := range conns {
		if rc.Session == s.ID {
			return rc.ID, one.RemoteAddr, nil
		}
	}
	return s.ID, one.RemoteAddr, err
}

type rtspConn struct {
	ID      string `json:"id"`
	Session string `json:"session"` // null until one exists
}

func (c *mtxClient) rtspConns(ctx context.Context) ([]rtspConn, error) {
	var l struct {
		Items []rtspConn `json:"items"`
	}
	err := c.do(ctx, http.MethodGet, "/v3/rtspconns/list"+all, &l)
	return l.Items, err
}

// exists asks the protocol's server, not the path list: it answers while an
// auth call is open.
func (c *mtxClient) exists(ctx context.Context, s source) (bool, error) {
	if s.resource() == "" {
		return true, nil
	}
	err := c.do(ctx, http.MethodGet, "/v3/"+s.resource()+"/get/"+url.PathEscape(s.ID), nil)
	if gone(err) {
		return false, nil
	}
	return true, err
}

// kick closes the publisher's connection. One that is already gone is no error.
func (c *mtxClient) kick(ctx context.Context, s source) error {
	if s.Type == rtspConnType { // only a session can be kicked
		var one rtspConn
		err := c.do(ctx, http.MethodGet, "/v3/rtspconns/get/"+url.PathEscape(s.ID), &one)
		if gone(err) || (err == nil && one.Session == "") {
			return nil
		}
		if err != nil {
			return err
		}
		s = source{Type: "rtspSession", ID: one.Session}
	}
	if s.resource() == "" {
		return fmt.Errorf("kicking a %s: %w", s.Type, stream.ErrInvalid)
	}
	err := c.do(ctx, http.MethodPost, "/v3/"+s.resource()+"/kick/"+url.PathEscape(s.ID), nil)
	if gone(err) {
		return nil
	}
	return err
}
