package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dionysia-dev/dionysia/services/ingest/hook"
)

// maxBody bounds what mediamtx posts.
const maxBody = 64 << 10

func (a *Agent) handler() http.Handler {
	r := mux.NewRouter()
	r.Handle("/auth", a.fromMediaMTX(a.serveAuth)).Methods(http.MethodPost)
	r.Handle("/hook/{event:ready|not-ready}", a.fromMediaMTX(a.serveHook)).Methods(http.MethodPost)
	r.Handle("/metrics", promhttp.HandlerFor(a.reg, promhttp.HandlerOpts{})).Methods(http.MethodGet)
	r.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }).
		Methods(http.MethodGet)
	r.HandleFunc("/readyz", a.serveReady).Methods(http.MethodGet)
	return r
}

// fromMediaMTX lets mediamtx and its hooks in: basic with the hook user, which
// a URL can carry without being printed in errors, or bearer.
func (a *Agent) fromMediaMTX(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		basic := ok && equal(user, hookUser) && equal(password, a.hookPassword)
		if !basic && !equal(r.Header.Get("Authorization"), "Bearer "+a.hookPassword) {
			http.Error(w, "unauthorized", http.StatusUnauthorized)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		h(w, r)
	})
}

func (a *Agent) serveAuth(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	var req authRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		http.Error(w, "malformed auth request", http.StatusBadRequest)
		return
	}
	v := a.authorize(r.Context(), req)
	a.metrics.authSeconds.WithLabelValues(actionLabel(req.Action)).Observe(time.Since(start).Seconds())
	if v.ok {
		if req.Action == "publish" && req.ID != "" {
			a.log.Info("publisher accepted", "path", req.Path, "protocol", req.Protocol, "remote", req.IP, "conn", req.ID)
			nudge(a.pollNow)
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	a.record(req, v)
	// mediamtx prints the body in its log and, for WHIP, to the client: who may
	// not publish is not told which streams exist or who is sending.
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = w.Write([]byte("refused; the ingest agent's log says why")) // mediamtx has gone, if it fails
}

// record counts and logs a refusal; the log is told once per cause and minute.
func (a *Agent) record(req authRequest, v verdict) {
	if v.retry {
		if req.Action == "publish" {
			a.unanswered.asked(req, time.Now())
		}
		a.log.Debug("asking for credentials", "path", req.Path, "protocol", req.Protocol, "remote", req.IP)
		return
	}
	what := "publisher refused"
	switch req.Action {
	case "publish":
		a.metrics.refused.WithLabelValues(v.reason).Inc()
		if v.reason == reasonNoKey {
			a.tellUnkeyed(req)
		}
	case "read":
		what = "reader refused"
		a.metrics.readRefused.WithLabelValues(v.reason).Inc()
	default:
		what = "request to mediamtx refused"
	}
	log := a.log.Warn
	if !a.quiet.first(what+"\x00"+v.reason+"\x00"+req.Path+"\x00"+req.IP, time.Now()) {
		log = a.log.Debug
	}
	log(what, "reason", v.reason, "detail", v.detail, "action", req.Action, "path", req.Path,
		"protocol", req.Protocol, "remote", req.IP, "conn", req.ID)
}

// actionLabel keeps a metric's label to known values.
func actionLabel(action string) string {
	switch action {
	case "publish", "read", "api":
		return action
	}
	return "other"
}

func (a *Agent) serveHook(w http.ResponseWriter, r *http.Request) {
	var e hook.Event
	if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
		http.Error(w, "malformed hook", http.StatusBadRequest)
		return
	}
	event := mux.Vars(r)["event"]
	a.metrics.hooks.WithLabelValues(event).Inc()
	a.log.Debug("hook", "event", event, "path", e.Path, "source", e.SourceID, "type", e.SourceType)
	nudge(a.pollNow)
	w.WriteHeader(http.StatusNoContent)
}

// serveReady says 200 while mediamtx's paths can be listed. Without the api
// the agent is degraded: who is live stays live, and who was accepted before
// may return.
func (a *Agent) serveReady(w http.ResponseWriter, _ *http.Request) {
	var body struct {
		Status   string `json:"status"` // ready, degraded or not ready
		MediaMTX string `json:"mediamtx"`
		API      string `json:"api"`
	}
	body.Status, body.MediaMTX, body.API = "ready", "ok", "ok"
	now := time.Now()
	if !a.apiHealth.ok(now) {
		body.Status, body.API = "degraded", a.apiHealth.why()
	}
	status := http.StatusOK
	if !a.mtxHealth.ok(now) {
		body.Status, body.MediaMTX = "not ready", a.mtxHealth.why()
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone, if it fails
}

// Ready returns nil while mediamtx's paths can be listed: publishers can be
// sent here.
func (a *Agent) Ready(context.Context) error {
	if !a.mtxHealth.ok(time.Now()) {
		return errors.New("mediamtx: " + a.mtxHealth.why())
	}
	return nil
}
