package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// problemType is the prefix of every problem's type.
const problemType = "urn:dionysia:problem:"

// problem is an error that carries its own RFC 9457 document. Its detail goes
// to the client; cause goes to the log only.
type problem struct {
	doc     wire.Problem
	headers map[string]string
	cause   error
}

func (p *problem) Error() string {
	if p.cause != nil {
		return p.cause.Error()
	}
	return fmt.Sprintf("%d %s: %s", p.doc.Status, p.doc.Title, p.doc.Detail)
}

func (p *problem) Unwrap() error { return p.cause }

func newProblem(status int, slug, title, format string, args ...any) *problem {
	return &problem{doc: wire.Problem{
		Type: problemType + slug, Title: title, Status: status, Detail: fmt.Sprintf(format, args...),
	}}
}

func (p *problem) header(name, value string) *problem {
	if p.headers == nil {
		p.headers = map[string]string{}
	}
	p.headers[name] = value
	return p
}

func (p *problem) reason(r string) *problem {
	p.doc.Reason = r
	return p
}

func (p *problem) field(name, format string, args ...any) *problem {
	p.addField(name, fmt.Sprintf(format, args...))
	return p
}

func (p *problem) addField(name, message string) {
	p.doc.Errors = append(p.doc.Errors, wire.FieldError{Field: name, Message: message})
}

func badRequest(format string, args ...any) *problem {
	return newProblem(http.StatusBadRequest, "bad-request", "The request is malformed", format, args...)
}

func invalidField(name, format string, args ...any) *problem {
	return newProblem(http.StatusUnprocessableEntity, "invalid", "A value is not allowed",
		"See errors.").field(name, format, args...)
}

func preconditionFailed(what string) *problem {
	return newProblem(http.StatusPreconditionFailed, "precondition-failed",
		"It has changed meanwhile", "%s is not at the version that the request names; read it again.", what)
}

// about names the thing that err is about, such as `stream "demo"`, so that
// the client reads which one was not found. Nothing else of err reaches it.
func about(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	var p *problem
	if errors.As(err, &p) {
		return err
	}
	var made *problem
	switch {
	case errors.Is(err, stream.ErrNotFound):
		made = newProblem(http.StatusNotFound, "not-found", "Not found", "There is no %s.", what)
	case errors.Is(err, stream.ErrExists):
		made = newProblem(http.StatusConflict, "exists", "It already exists", "There is a %s already.", what)
	case errors.Is(err, stream.ErrInUse):
		made = newProblem(http.StatusConflict, "in-use", "It is in use", "The %s is in use.", what)
	case errors.Is(err, stream.ErrConflict):
		made = newProblem(http.StatusConflict, "conflict", "It has changed meanwhile",
			"The %s is being changed by others; try again.", what)
	case errors.Is(err, stream.ErrInvalid):
		made = newProblem(http.StatusUnprocessableEntity, "invalid", "A value is not allowed", "The %s is not valid.", what)
		for _, f := range stream.FieldErrors(err) {
			made.addField(f.Field, f.Message)
		}
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
	made.cause = fmt.Errorf("%s: %w", what, err)
	return made
}

// asProblem is the one place that maps any error to a status. An error that
// is not a problem yet says nothing to the client but whether to try again.
func asProblem(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return newProblem(http.StatusRequestEntityTooLarge, "too-large", "The body is too large",
			"A body may have %d bytes at most.", tooLarge.Limit)
	}
	if unavailable(err) {
		p = newProblem(http.StatusServiceUnavailable, "unavailable", "Not available now",
			"The state store can't be reached; try again.").header("Retry-After", "1")
	} else {
		p = newProblem(http.StatusInternalServerError, "internal", "Internal error",
			"The log of the api says what happened.")
	}
	p.cause = err
	return p
}

// unavailable tells a store that can't be reached from a defect.
func unavailable(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// fail answers with err's problem document and logs what the client may not see.
func (h *handlers) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := asProblem(err)
	if p.doc.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
		h.logger.Error("request failed", "method", r.Method, "path", r.URL.Path, "status", p.doc.Status, "error", err)
	}
	writeProblem(w, r, p)
}

func writeProblem(w http.ResponseWriter, r *http.Request, p *problem) {
	doc := p.doc
	doc.Instance = r.URL.EscapedPath()
	body, err := json.Marshal(doc)
	if err != nil { // strings and integers always marshal
		body = []byte(`{"type":"about:blank","title":"Internal error","status":500}`)
	}
	header := w.Header()
	for name, value := range p.headers {
		header.Set(name, value)
	}
	header.Set("Content-Type", "application/problem+json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(doc.Status)
	_, _ = w.Write(body) // the client is gone when this fails
}
