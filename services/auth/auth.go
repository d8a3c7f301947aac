// Package auth makes and checks stream keys, API tokens, the cluster's shared
// secret and the signed tokens with which workers read from mediamtx.
package auth

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// ErrToken is wrapped by VerifyReadToken's errors.
var ErrToken = errors.New("token refused")

// hashPrefix names the hash, so that another can follow.
const hashPrefix = "sha256:"

// NewStreamKey returns a new random key of 160 bits, in 32 lower-case letters
// and digits that every protocol carries unescaped, and the hash to store. The
// key itself is stored nowhere.
func NewStreamKey() (plain, hash string) {
	plain = random(20)
	return plain, HashKey(plain)
}

// HashKey returns the hash to store of a key. A key is random and long, so one
// SHA-256 is enough: there is nothing to guess that a slow hash would protect.
func HashKey(plain string) string {
	sum := sha256.Sum256([]byte(plain))
	return hashPrefix + hex.EncodeToString(sum[:])
}

// CheckKey reports in constant time whether plain is the key that was hashed.
// An empty hash matches nothing.
func CheckKey(hash, plain string) bool {
	return subtle.ConstantTimeCompare([]byte(hash), []byte(HashKey(plain))) == 1
}

// NewToken returns a new random API token of 256 bits.
func NewToken() string { return random(32) }

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // it never fails: it ends the process instead
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

// Secret is the secret that the roles of one cluster share. It is used only to
// derive others from.
type Secret []byte

// String hides the secret from logs.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret from logs.
func (Secret) GoString() string { return "(secret)" }

// Derive returns the secret for one purpose: 64 hexadecimal digits of
// HKDF-SHA256 (RFC 5869) with the label as its info. It panics when s is empty:
// every derived secret would be public.
func (s Secret) Derive(label string) string {
	if len(s) == 0 {
		panic("auth: deriving from an empty secret")
	}
	b, err := hkdf.Key(sha256.New, s, nil, "dionysia "+label, sha256.Size)
	if err != nil { // only for a length above 255 hashes
		panic(fmt.Sprintf("auth: deriving %s: %v", label, err))
	}
	return hex.EncodeToString(b)
}

// The labels of the secrets that are derived.
const (
	LabelInternalAPI = "internal-api"  // bearer between the roles
	LabelHook        = "mediamtx-hook" // mediamtx to its ingest agent
	labelRead        = "read"          // key of the read tokens
)

const (
	readAudience = "dionysia-read"
	// clockLeeway is how far two hosts' clocks may be apart.
	clockLeeway = 30 * time.Second
)

// readClaims are a read token's: the subject is the worker.
type readClaims struct {
	Path string `json:"path"`
	jwt.RegisteredClaims
}

// ReadToken returns a token (JWT, HS256) that lets worker read the mediamtx path
// for ttl from now.
func (s Secret) ReadToken(path, worker string, ttl time.Duration) (string, error) {
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, readClaims{Path: path, RegisteredClaims: jwt.RegisteredClaims{
		Subject: worker, Audience: jwt.ClaimStrings{readAudience},
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(ttl))}})
	signed, err := t.SignedString([]byte(s.Derive(labelRead)))
	if err != nil {
		return "", fmt.Errorf("signing a read token: %w", err)
	}
	return signed, nil
}

// VerifyReadToken checks a token of ReadToken for path. Its error wraps ErrToken
// and never holds the token.
func (s Secret) VerifyReadToken(token, path string) error {
	_, err := s.ReadTokenWorker(token, path)
	return err
}

// ReadTokenWorker is VerifyReadToken, and returns the worker that reads.
func (s Secret) ReadTokenWorker(token, path string) (string, error) {
	var c readClaims
	_, err := jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return []byte(s.Derive(labelRead)), nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithAudience(readAudience), jwt.WithExpirationRequired(), jwt.WithLeeway(clockLeeway))
	if err != nil {
		return "", fmt.Errorf("read token: %w: %w", ErrToken, err)
	}
	if c.Path != path {
		return "", fmt.Errorf("read token: it is for path %q, not %q: %w", c.Path, path, ErrToken)
	}
	return c.Subject, nil
}
