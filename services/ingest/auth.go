package ingest

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// authRequest is the body of mediamtx's auth call. It carries secrets: it is
// never logged as a whole.
type authRequest struct {
	User     string `json:"user"`
	Password string `json:"password"`
	Token    string `json:"token"`
	IP       string `json:"ip"`
	Action   string `json:"action"`
	Path     string `json:"path"`
	Protocol string `json:"protocol"`
	ID       string `json:"id"` // connection; a session's for webrtc; "" for WHIP's OPTIONS
	Query    string `json:"query"`
}

// bare reports whether the request carries no credentials at all. mediamtx
// answers the refusal of such an RTSP or HTTP request with 401, and the client
// tries again with the ones from its URL.
func (r authRequest) bare() bool { return r.User == "" && r.Password == "" && r.Token == "" }

// credential is the first of: the query's parameter with this name, the
// bearer token, the password.
func (r authRequest) credential(name string) string {
	if q, err := url.ParseQuery(r.Query); err == nil && q.Get(name) != "" {
		return q.Get(name)
	}
	if r.Token != "" {
		return r.Token
	}
	return r.Password
}

// Reasons of a refusal: the label of dionysia_ingest_publish_refused_total, and the
// word in the log.
const (
	reasonPath     = "bad_path"
	reasonNoKey    = "no_key"
	reasonUnknown  = "unknown_stream"
	reasonDeleted  = "deleted_stream"
	reasonBadKey   = "bad_key"
	reasonDisabled = "disabled"
	reasonBusy     = "busy"
	reasonAway     = "api_away"
	reasonInvalid  = "invalid"
	reasonToken    = "bad_token"
	reasonAction   = "action"
)

// verdict is the answer to an auth call. Retry marks a refusal that only asks
// for credentials; it is not recorded.
type verdict struct {
	ok     bool
	retry  bool
	reason string
	detail string
}

// streamOf returns the stream of a path live/<id>.
func streamOf(path string) (string, error) {
	id, ok := strings.CutPrefix(path, "live/")
	if !ok || stream.CheckID(id) != nil {
		return "", stream.ErrInvalid
	}
	return id, nil
}

// authorize decides on an auth call.
func (a *Agent) authorize(ctx context.Context, r authRequest) verdict {
	switch r.Action {
	case "publish":
		return a.authorizePublish(ctx, r)
	case "read":
		return a.authorizeRead(r)
	case "api", "metrics", "pprof":
		if equal(r.User, mediaMTXUser) && equal(r.Password, a.mtxPassword) {
			return verdict{ok: true}
		}
		return verdict{retry: r.bare(), reason: reasonAction, detail: "not the agent's credentials"}
	}
	return verdict{reason: reasonAction, detail: "nobody may do that here"}
}

func (a *Agent) authorizeRead(r authRequest) verdict {
	if _, err := streamOf(r.Path); err != nil {
		return verdict{reason: reasonPath, detail: "the path must be live/<stream>"}
	}
	token := r.credential("token")
	if token == "" {
		return verdict{reason: reasonToken, detail: "no read token"}
	}
	if err := a.cfg.Secret.VerifyReadToken(token, r.Path); err != nil {
		return verdict{reason: reasonToken, detail: err.Error()}
	}
	return verdict{ok: true}
}

func (a *Agent) authorizePublish(ctx context.Context, r authRequest) verdict {
	id, err := streamOf(r.Path)
	if err != nil {
		return verdict{reason: reasonPath, detail: "the path must be live/<stream>"}
	}
	key := r.credential("key")
	if key == "" {
		// WHIP's POST gets no second try: mediamtx answers it with 400.
		ask := r.Protocol == "rtsp" || (r.Protocol == "webrtc" && r.ID == "")
		return verdict{retry: ask && r.bare(), reason: reasonNoKey, detail: "no stream key"}
	}
	now := time.Now()
	a.unanswered.answered(r)
	g := grant{Stream: id, Conn: r.ID, Protocol: r.Protocol, Remote: r.IP, mac: a.grants.mac(id, key), at: now}
	if r.ID == "" {
		return a.authorizePreflight(g, now)
	}
	w := a.book.look(id, r.ID, now)
	if w.Busy != nil {
		w = a.lookTwice(ctx, id, r.ID, w, now)
	}
	err = a.api.publish(ctx, publishRequest{
		Stream: id, Key: key, Node: a.cfg.Node, Conn: r.ID, Protocol: r.Protocol, Remote: r.IP,
		Takeover: w.takeover(),
	})
	switch {
	case err == nil:
		a.grants.keep(id, g.mac, now)
	// One whose key the api has accepted, and that it does not know, was lost: until
	// that is restored, the api's answer is worth what none is.
	case (errors.Is(err, errAway) || stream.Lost(err, time.Time{})) && a.grants.has(id, g.mac, now):
		a.log.Warn("letting a publisher in by an earlier grant", "stream", id, "conn", r.ID, "error", err)
	case errors.Is(err, errAway):
		return verdict{reason: reasonAway, detail: err.Error()}
	case errors.Is(err, stream.ErrBusy):
		return verdict{reason: reasonBusy, detail: busyDetail(w)}
	default:
		a.grants.forget(id, g.mac)
		return refusal(err)
	}
	if w.Busy != nil { // the api's claim was lost; the one who sends stays
		return verdict{reason: reasonBusy, detail: busyDetail(w)}
	}
	a.book.grant(g)
	if w.Silent != nil {
		a.takeOver(*w.Silent, g)
	}
	return verdict{ok: true}
}

// authorizePreflight answers WHIP's OPTIONS and mediamtx's own publish page,
// which come before there is a session. What they get is no secret (there are
// no ICE servers with credentials), so a key is not needed to be right, only
// to be there; the POST that follows is checked.
func (a *Agent) authorizePreflight(g grant, now time.Time) verdict {
	a.log.Debug("preflight", "stream", g.Stream, "protocol", g.Protocol, "known", a.grants.has(g.Stream, g.mac, now))
	return verdict{ok: true}
}

// lookTwice asks mediamtx whether the one in the way is still connected: the
// poll that would tell may be half a second away.
func (a *Agent) lookTwice(ctx context.Context, id, conn string, w way, now time.Time) way {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.APIPatience/2)
	defer cancel()
	there, err := a.mtx.exists(ctx, w.Busy.Source)
	if err != nil || there {
		return w
	}
	a.book.gone(id, w.Busy.Source.ID, now)
	return a.book.look(id, conn, now)
}

// takeOver closes the silent publisher's connection, in the background:
// mediamtx must have its answer first.
func (a *Agent) takeOver(old session, g grant) {
	a.metrics.takeovers.Inc()
	a.log.Info("taking over from a silent publisher", "stream", g.Stream, "protocol", g.Protocol, "remote", g.Remote,
		"silent_conn", old.Conn, "silent_remote", old.Remote)
	a.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), mtxTimeout)
		defer cancel()
		if err := a.mtx.kick(ctx, old.Source); err != nil {
			a.log.Warn("closing the silent publisher", "stream", g.Stream, "error", err)
		}
	})
}

func busyDetail(w way) string {
	if w.Busy == nil {
		return "another publisher holds the stream"
	}
	return "another publisher is sending (" + w.Busy.Protocol + " from " + w.Busy.Remote + ")"
}

func refusal(err error) verdict {
	switch {
	case errors.Is(err, stream.ErrDeleted):
		return verdict{reason: reasonDeleted, detail: "the stream was deleted"}
	case errors.Is(err, stream.ErrNotFound):
		return verdict{reason: reasonUnknown, detail: "there is no such stream"}
	case errors.Is(err, stream.ErrDisabled):
		return verdict{reason: reasonDisabled, detail: "the stream is disabled"}
	case errors.Is(err, stream.ErrBadKey):
		return verdict{reason: reasonBadKey, detail: "the stream key is wrong"}
	}
	return verdict{reason: reasonInvalid, detail: err.Error()}
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
