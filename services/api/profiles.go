package api

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// ListProfiles serves GET /v1/profiles.
func (h *handlers) ListProfiles(w http.ResponseWriter, r *http.Request, params wire.ListProfilesParams) {
	limit, after, err := page("profiles", params.Limit, params.After)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	all, err := h.store.ListProfiles(r.Context())
	if err != nil {
		h.fail(w, r, about(err, "list of profiles"))
		return
	}
	items, next := slicePage(all, func(p stream.Profile) string { return p.Name }, after, limit)
	out := wire.ProfilePage{Items: make([]wire.Profile, 0, len(items)), Next: cursor("profiles", next)}
	for _, p := range items {
		out.Items = append(out.Items, toProfile(p))
	}
	h.answer(w, r, http.StatusOK, out)
}

// GetProfile serves GET /v1/profiles/{name}.
func (h *handlers) GetProfile(w http.ResponseWriter, r *http.Request, name wire.ProfileName) {
	p, err := h.profile(r, name)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	setETag(w, p.Version)
	h.answer(w, r, http.StatusOK, toProfile(p))
}

// PutProfile serves PUT /v1/profiles/{name}.
func (h *handlers) PutProfile(w http.ResponseWriter, r *http.Request, name wire.ProfileName, params wire.PutProfileParams) {
	p, created, err := h.putProfile(r, name, params)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.logger.Info("profile changed", "profile", name, "version", p.Version)
	setETag(w, p.Version)
	if created {
		w.Header().Set("Location", "/v1/profiles/"+name)
		h.answer(w, r, http.StatusCreated, toProfile(p))
		return
	}
	h.answer(w, r, http.StatusOK, toProfile(p))
}

func (h *handlers) putProfile(r *http.Request, name string, params wire.PutProfileParams) (p stream.Profile, created bool, err error) {
	var body wire.ProfileSpec
	if err := decode(r, &body); err != nil {
		return p, false, err
	}
	want, err := ifMatch(params.IfMatch)
	if err != nil {
		return p, false, err
	}
	onlyCreate := params.IfNoneMatch != nil
	if onlyCreate && *params.IfNoneMatch != "*" {
		return p, false, badRequest("A header is malformed.").field("If-None-Match", "must be *")
	}
	next := fromProfileSpec(name, body)
	if err := next.Validate(); err != nil {
		return p, false, about(err, "profile")
	}
	for range updateTries {
		old, err := h.store.GetProfile(r.Context(), name)
		exists := err == nil
		switch {
		case err != nil && !errors.Is(err, stream.ErrNotFound):
			return p, false, about(err, "profile %q", name)
		case exists && old.BuiltIn:
			return p, false, builtIn(name)
		case exists && onlyCreate, want != 0 && (!exists || old.Version != want):
			return p, false, preconditionFailed(fmt.Sprintf("Profile %q", name))
		}
		next.Version = old.Version // 0: there must be none
		p, err = h.store.PutProfile(r.Context(), next)
		if !errors.Is(err, stream.ErrConflict) {
			return p, !exists, about(err, "profile %q", name)
		}
	}
	return p, false, about(stream.ErrConflict, "profile %q", name)
}

// DeleteProfile serves DELETE /v1/profiles/{name}.
func (h *handlers) DeleteProfile(w http.ResponseWriter, r *http.Request, name wire.ProfileName) {
	p, err := h.profile(r, name)
	if err == nil && p.BuiltIn {
		err = builtIn(name)
	}
	if err == nil {
		err = about(h.store.DeleteProfile(r.Context(), name), "profile %q", name)
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.logger.Info("profile deleted", "profile", name)
	w.WriteHeader(http.StatusNoContent)
}

// profile reads a profile; its errors are problems.
func (h *handlers) profile(r *http.Request, name string) (stream.Profile, error) {
	if err := stream.CheckName(name); err != nil {
		return stream.Profile{}, newProblem(http.StatusNotFound, "not-found", "Not found",
			"%q can't be a profile's name: %s.", clip(name), idGrammar)
	}
	p, err := h.store.GetProfile(r.Context(), name)
	return p, about(err, "profile %q", name)
}

func builtIn(name string) *problem {
	return newProblem(http.StatusConflict, "built-in", "Built-in profiles can't be changed",
		"%q is built in; choose another name.", name)
}
