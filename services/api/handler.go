package api

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
)

//go:embed openapi.yaml
var openAPI []byte

// idGrammar says in words what stream.CheckID and stream.CheckName check.
const idGrammar = "1 to 63 lower case letters, digits, - and _, not at the ends"

// readyTimeout bounds the check behind /readyz.
const readyTimeout = 2 * time.Second

// handlers implements the generated wire.ServerInterface.
type handlers struct {
	store    Store
	ledgers  *store.Ledgers
	nodes    Nodes
	policy   placement.Policy
	logger   hclog.Logger
	now      func() time.Time
	refusals refusals
	ingest   ingestView
	// publishes counts what ingest agents were answered.
	publishes *prometheus.CounterVec
}

// newRouter binds the generated routes and the ones for operations.
func newRouter(h *handlers, metrics http.Handler) *mux.Router {
	// SkipClean: a path is matched as it came, never rewritten and redirected.
	router := mux.NewRouter().SkipClean(true)
	router.Use(labelRoute)
	router.Handle("/metrics", metrics).Methods(http.MethodGet, http.MethodHead)
	router.HandleFunc("/healthz", h.healthz).Methods(http.MethodGet, http.MethodHead)
	router.HandleFunc("/readyz", h.readyz).Methods(http.MethodGet, http.MethodHead)
	wire.HandlerWithOptions(h, wire.GorillaServerOptions{BaseRouter: router, ErrorHandlerFunc: h.badParameter})
	router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, r, newProblem(http.StatusNotFound, "no-route", "Not found", "There is no such path."))
	})
	router.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowed := strings.Join(allowedMethods(router, r), ", ")
		writeProblem(w, r, newProblem(http.StatusMethodNotAllowed, "method-not-allowed", "Method not allowed",
			"This path takes %s.", allowed).header("Allow", allowed))
	})
	return router
}

func allowedMethods(router *mux.Router, r *http.Request) []string {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = method
		var match mux.RouteMatch
		if router.Match(probe, &match) && match.MatchErr == nil {
			allowed = append(allowed, method)
		}
	}
	sort.Strings(allowed)
	return allowed
}

// authorize guards every path: the internal ones with the internal token, the
// three for probes with none, all others, known or not, with the admin token.
func authorize(admin, internal string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := admin
		switch {
		case r.URL.Path == "/healthz", r.URL.Path == "/readyz", r.URL.Path == "/metrics":
			next.ServeHTTP(w, r)
			return
		case strings.HasPrefix(r.URL.Path, "/internal/"):
			token = internal
		}
		challenge := `Bearer realm="dionysia"`
		if len(r.Header.Values("Authorization")) == 1 && auth.CheckBearer(r, token) {
			next.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("Authorization") != "" {
			challenge += `, error="invalid_token"`
		}
		writeProblem(w, r, newProblem(http.StatusUnauthorized, "unauthorized", "A valid token is needed",
			"Send Authorization: Bearer and the token.").header("WWW-Authenticate", challenge))
	})
}

// limitBody makes reading a body fail past maxBody.
func limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

// rescue turns a panic into a problem document and a log line.
func (h *handlers) rescue(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if v := recover(); v != nil {
				h.logger.Error("panic", "path", r.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				writeProblem(w, r, asProblem(errors.New("panic")))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// badParameter answers for parameters that the generated code can't bind.
func (h *handlers) badParameter(w http.ResponseWriter, r *http.Request, err error) {
	var (
		format *wire.InvalidParamFormatError
		many   *wire.TooManyValuesForParamError
		needed *wire.RequiredParamError
	)
	p := badRequest("A parameter is malformed.")
	switch {
	case errors.As(err, &format):
		p.addField(format.ParamName, "is not of the right type")
	case errors.As(err, &many):
		p.addField(many.ParamName, "is given more than once")
	case errors.As(err, &needed):
		p.addField(needed.ParamName, "is required")
	}
	h.fail(w, r, p)
}

// GetOpenAPI serves GET /v1/openapi.yaml.
func (h *handlers) GetOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/vnd.oai.openapi")
	_, _ = w.Write(openAPI)
}

func (h *handlers) healthz(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, http.StatusOK, map[string]string{"status": "ok"})
}

// readyz is true when the state store answers.
func (h *handlers) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := h.store.Ping(ctx); err != nil {
		p := newProblem(http.StatusServiceUnavailable, "unavailable", "Not ready", "The state store can't be reached.")
		p.cause = err
		writeProblem(w, r, p)
		return
	}
	h.answer(w, r, http.StatusOK, map[string]string{"status": "ready"})
}

// answer writes a JSON body.
func (h *handlers) answer(w http.ResponseWriter, r *http.Request, status int, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		h.fail(w, r, fmt.Errorf("encoding the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client is gone when this fails
}

// setETag states a version as If-Match takes it.
func setETag(w http.ResponseWriter, version int64) {
	w.Header().Set("ETag", `"`+strconv.FormatInt(version, 10)+`"`)
}

// ifMatch reads an If-Match header: the version, or 0 when any will do.
func ifMatch(value *string) (int64, error) {
	if value == nil || strings.TrimSpace(*value) == "*" {
		return 0, nil
	}
	quoted := strings.TrimSpace(*value)
	text := strings.TrimSuffix(strings.TrimPrefix(quoted, `"`), `"`)
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil || version < 1 || (quoted != `"`+text+`"` && quoted != text) {
		return 0, badRequest("A header is malformed.").field("If-Match", `must be one ETag, such as "3", or *`)
	}
	return version, nil
}
