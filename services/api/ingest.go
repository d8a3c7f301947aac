package api

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Why a publisher is refused; part of the internal API.
const (
	reasonUnknown  = "unknown_stream"
	reasonDeleted  = "deleted_stream"
	reasonNoKey    = "no_key"
	reasonBadKey   = "bad_key"
	reasonDisabled = "disabled"
	reasonBusy     = "busy"
)

// refusalEvery is how often the same refusal of a stream enters its history:
// an encoder with a wrong key tries again every few seconds, for ever.
const refusalEvery = 10 * time.Second

// maxRefusals bounds the refusals that are remembered.
const maxRefusals = 1000

// IngestPublish serves POST /internal/v1/ingest/publish.
func (h *handlers) IngestPublish(w http.ResponseWriter, r *http.Request) {
	var body wire.PublishRequest
	if err := decodeTolerant(r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	if err := checkPeer(body.Node, body.Conn); err != nil {
		h.fail(w, r, err)
		return
	}
	s, err := h.admit(r.Context(), body)
	h.publishes.WithLabelValues(outcome(err)).Inc()
	if err != nil {
		h.refused(r.Context(), body, err)
		h.fail(w, r, err)
		return
	}
	h.logger.Info("publisher admitted", "stream", s.ID, "node", body.Node, "conn", body.Conn,
		"protocol", body.Protocol, "remote", body.Remote, "takeover", body.Takeover)
	h.answer(w, r, http.StatusOK, wire.PublishGrant{Stream: s.ID, GraceSeconds: float64(s.Grace)})
}

// outcome is the metric's label: granted, the reason of a refusal, or error.
func outcome(err error) string {
	var p *problem
	switch {
	case err == nil:
		return "granted"
	case errors.As(err, &p) && p.doc.Reason != "":
		return p.doc.Reason
	default:
		return "error"
	}
}

// admit checks the key before anything else that it would tell, and claims
// the stream last.
func (h *handlers) admit(ctx context.Context, body wire.PublishRequest) (stream.Stream, error) {
	if stream.CheckID(body.Stream) != nil {
		return stream.Stream{}, refusal(http.StatusForbidden, reasonUnknown, "%q can't be a stream's id: %s.", clip(body.Stream), idGrammar)
	}
	s, err := h.store.GetStream(ctx, body.Stream)
	if errors.Is(err, stream.ErrDeleted) {
		return s, refusal(http.StatusForbidden, reasonDeleted, "Stream %q was deleted.", body.Stream)
	}
	if errors.Is(err, stream.ErrNotFound) {
		return s, refusal(http.StatusForbidden, reasonUnknown, "There is no stream %q.", body.Stream)
	}
	if err != nil {
		return s, about(err, "stream %q", body.Stream)
	}
	if body.Key == "" {
		return s, refusal(http.StatusForbidden, reasonNoKey, "There is no stream key.")
	}
	hash, err := h.store.StreamKeyHash(ctx, s.ID)
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		return s, about(err, "key of stream %q", s.ID)
	}
	if err != nil || !auth.CheckKey(hash, body.Key) {
		return s, refusal(http.StatusForbidden, reasonBadKey, "The stream key is wrong.")
	}
	if s.Disabled {
		return s, refusal(http.StatusForbidden, reasonDisabled, "Stream %q is disabled.", s.ID)
	}
	claim := store.Claim{Node: body.Node, Conn: body.Conn, Protocol: body.Protocol, Remote: body.Remote}
	err = h.store.ClaimPublish(ctx, s.ID, claim, body.Takeover)
	if errors.Is(err, stream.ErrBusy) {
		return s, refusal(http.StatusConflict, reasonBusy, "Another publisher is sending stream %q.", s.ID)
	}
	return s, about(err, "publish claim of stream %q", s.ID)
}

func refusal(status int, reason, format string, args ...any) *problem {
	return newProblem(status, "publish-refused", "The publisher is refused", format, args...).reason(reason)
}

// refused logs a refusal and adds it to the stream's history.
func (h *handlers) refused(ctx context.Context, body wire.PublishRequest, err error) {
	var p *problem
	if !errors.As(err, &p) || p.doc.Reason == "" {
		return
	}
	h.logger.Warn("publisher refused", "stream", clip(body.Stream), "reason", p.doc.Reason, "node", body.Node,
		"protocol", body.Protocol, "remote", body.Remote)
	if p.doc.Reason == reasonUnknown || p.doc.Reason == reasonDeleted {
		return
	}
	host, _, splitErr := net.SplitHostPort(body.Remote)
	if splitErr != nil {
		host = body.Remote
	}
	if h.refusals.first(body.Stream+" "+p.doc.Reason+" "+host, h.now()) {
		h.event(ctx, body.Stream, "publish.refused", "warn",
			body.Protocol+" publisher "+clip(body.Remote)+" refused: "+p.doc.Detail)
	}
}

// IngestRelease serves POST /internal/v1/ingest/release.
func (h *handlers) IngestRelease(w http.ResponseWriter, r *http.Request) {
	var body wire.ReleaseRequest
	if err := decodeTolerant(r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	err := checkPeer(body.Node, body.Conn)
	if err == nil && stream.CheckID(body.Stream) != nil {
		err = invalidField("stream", "%s", idGrammar)
	}
	if err == nil {
		err = h.store.ReleaseClaim(r.Context(), body.Stream, body.Node, body.Conn)
	}
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		h.fail(w, r, about(err, "publish claim of stream %q", clip(body.Stream)))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// PutIngestReport serves PUT /internal/v1/ingest/nodes/{node}.
func (h *handlers) PutIngestReport(w http.ResponseWriter, r *http.Request, node string) {
	var body wire.IngestReport
	if err := decodeTolerant(r, &body); err != nil {
		h.fail(w, r, err)
		return
	}
	if body.Node != node {
		h.fail(w, r, invalidField("node", "is %q in the body and %q in the path", clip(body.Node), clip(node)))
		return
	}
	if err := checkPeer(node, body.Boot); err != nil {
		h.fail(w, r, err)
		return
	}
	if err := h.store.PutIngestReport(r.Context(), fromIngestReport(body)); err != nil {
		h.fail(w, r, about(err, "report of ingest node %q", node))
		return
	}
	for _, id := range h.ingest.changes(body) {
		h.notify(r.Context(), id)
	}
	kick, err := h.kicks(r.Context(), body.Paths)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answer(w, r, http.StatusOK, wire.IngestReply{Kick: kick})
}

// kicks are the streams that are being published and may not be: they were deleted or
// disabled. One that is only missing was let in once, so it was lost with Redis state,
// and is left alone until that is restored.
func (h *handlers) kicks(ctx context.Context, paths []wire.IngestPath) ([]string, error) {
	kick := []string{}
	for part := range slices.Chunk(paths, statesBatch) {
		ids, ready := make([]string, 0, len(part)), make([]time.Time, 0, len(part))
		for _, p := range part {
			if stream.CheckID(p.Stream) != nil {
				kick = append(kick, p.Stream)
				continue
			}
			ids = append(ids, p.Stream)
			var since time.Time
			if p.ReadySince != nil {
				since = *p.ReadySince
			}
			ready = append(ready, since)
		}
		if len(ids) == 0 {
			continue
		}
		states, _, err := h.store.States(ctx, ids, func(string) bool { return false })
		if err != nil {
			return nil, about(err, "state of %d streams", len(ids))
		}
		for i, st := range states {
			switch {
			case stream.Deleted(st.StreamErr, ready[i]):
				kick = append(kick, ids[i])
			case errors.Is(st.StreamErr, stream.ErrNotFound):
			case st.StreamErr != nil:
				return nil, about(st.StreamErr, "stream %q", ids[i])
			case st.Stream.Disabled:
				kick = append(kick, ids[i])
			}
		}
	}
	return kick, nil
}

// checkPeer checks the names that a role gives itself.
func checkPeer(node, instance string) error {
	if len(node) == 0 || len(node) > 200 {
		return invalidField("node", "must have 1 to 200 characters")
	}
	if len(instance) == 0 || len(instance) > 200 {
		return invalidField("conn or boot", "must have 1 to 200 characters")
	}
	return nil
}

// refusals remembers when each refusal was last written down.
type refusals struct {
	mu   sync.Mutex
	seen map[string]time.Time
}

// first reports whether key has not come within refusalEvery.
func (r *refusals) first(key string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.seen[key]; ok && now.Sub(at) < refusalEvery {
		return false
	}
	if len(r.seen) >= maxRefusals {
		for k, at := range r.seen {
			if now.Sub(at) >= refusalEvery {
				delete(r.seen, k)
			}
		}
		if len(r.seen) >= maxRefusals {
			return false // a flood: the log has it all
		}
	}
	if r.seen == nil {
		r.seen = map[string]time.Time{}
	}
	r.seen[key] = now
	return true
}

// ingestView is what each ingest node had in its last report, so that a
// change is told at once and an unchanged report wakes nobody.
type ingestView struct {
	mu    sync.Mutex
	nodes map[string]map[string]ingestPath
}

type ingestPath struct {
	session string
	ready   bool
}

// changes takes a report and returns the streams whose session or readiness
// is not what the same node's report before said.
func (v *ingestView) changes(r wire.IngestReport) []string {
	next := make(map[string]ingestPath, len(r.Paths))
	for _, p := range r.Paths {
		next[p.Stream] = ingestPath{session: p.Session, ready: p.Ready}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	var changed []string
	before := v.nodes[r.Node]
	for id, p := range next {
		if was, ok := before[id]; !ok || was != p {
			changed = append(changed, id)
		}
	}
	for id := range before {
		if _, ok := next[id]; !ok {
			changed = append(changed, id)
		}
	}
	if v.nodes == nil {
		v.nodes = map[string]map[string]ingestPath{}
	}
	v.nodes[r.Node] = next
	return changed
}
