package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/gorilla/mux"
)

// Bearer returns a middleware that lets a request through only with the header
// "Authorization: Bearer <token>" (RFC 6750), compared in constant time. Others
// get 401 with a problem document. An empty token lets nothing through.
func Bearer(token string) mux.MiddlewareFunc {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !CheckBearer(r, token) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="dionysia"`)
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusUnauthorized)
				_, _ = w.Write([]byte(`{"type":"about:blank","title":"Unauthorized","status":401,"detail":"A valid bearer token is needed."}` + "\n"))
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// CheckBearer reports whether the request carries the token as its bearer.
func CheckBearer(r *http.Request, token string) bool {
	scheme, got, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return false
	}
	// Hashed first: comparing in constant time still tells lengths apart.
	a, b := sha256.Sum256([]byte(strings.TrimSpace(got))), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
