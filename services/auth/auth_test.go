package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/dionysia-dev/dionysia/services/stream"
)

func TestStreamKey(t *testing.T) {
	plain, hash := NewStreamKey()
	if err := stream.CheckKeyGrammar(plain); err != nil {
		t.Error(err)
	}
	if strings.Contains(hash, plain) {
		t.Error("the hash holds the key")
	}
	other, _ := NewStreamKey()
	for name, c := range map[string]struct {
		hash, plain string
		want        bool
	}{
		"right": {hash, plain, true}, "other": {hash, other, false}, "empty": {hash, "", false},
		"no hash": {"", plain, false}, "neither": {"", "", false}, "the hash itself": {hash, hash, false},
	} {
		if got := CheckKey(c.hash, c.plain); got != c.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestSecret(t *testing.T) {
	a, b := Secret("one secret of enough"), Secret("other secret of enough")
	ax, again := a.Derive("x"), a.Derive("x")
	if ax == a.Derive("y") || ax == b.Derive("x") || ax != again || len(ax) != 64 {
		t.Error("derived secrets do not depend on exactly the secret and the label")
	}
	for _, s := range []string{fmt.Sprint(a), fmt.Sprintf("%v %s %#v", a, a, a)} {
		if strings.Contains(s, "one secret") {
			t.Errorf("%q shows the secret", s)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("an empty secret derives")
		}
	}()
	Secret(nil).Derive("x")
}

func TestReadToken(t *testing.T) {
	s := Secret("one secret of enough")
	good, err := s.ReadToken("live/demo", "w1", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := s.ReadTokenWorker(good, "live/demo"); err != nil || w != "w1" {
		t.Fatalf("got %q, %v", w, err)
	}
	expired, _ := s.ReadToken("live/demo", "w1", -time.Minute)
	foreign, _ := Secret("other secret of enough").ReadToken("live/demo", "w1", time.Minute)
	none, _ := jwt.NewWithClaims(jwt.SigningMethodNone, readClaims{Path: "live/demo", RegisteredClaims: jwt.RegisteredClaims{
		Audience: jwt.ClaimStrings{readAudience}, ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour))}}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	sign := func(c jwt.Claims) string {
		tok, _ := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(s.Derive(labelRead)))
		return tok
	}
	for name, tok := range map[string]string{
		"expired": expired, "foreign": foreign, "alg none": none, "empty": "", "garbage": "a.b.c", "cut": good[:len(good)-2],
		"no expiry":      sign(readClaims{Path: "live/demo", RegisteredClaims: jwt.RegisteredClaims{Audience: jwt.ClaimStrings{readAudience}}}),
		"other audience": sign(readClaims{Path: "live/demo", RegisteredClaims: jwt.RegisteredClaims{ExpiresAt: jwt.NewNumericDate(time.Now().Add(time.Hour))}}),
	} {
		if err := s.VerifyReadToken(tok, "live/demo"); !errors.Is(err, ErrToken) {
			t.Errorf("%s: got %v, want ErrToken", name, err)
		}
	}
	if err := s.VerifyReadToken(good, "live/other"); !errors.Is(err, ErrToken) {
		t.Errorf("another path: got %v, want ErrToken", err)
	}
}

func TestSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if _, err := LoadSecretFile(path, 1); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want ErrNotExist", err)
	}
	var wg sync.WaitGroup
	got := make([]string, 20)
	for i := range got {
		wg.Go(func() {
			s, err := LoadOrCreateSecretFile(path)
			if err != nil {
				t.Error(err)
			}
			got[i] = string(s)
		})
	}
	wg.Wait()
	for _, s := range got {
		if s != got[0] || len(s) < 32 {
			t.Fatalf("not one secret: %d characters and %d", len(s), len(got[0]))
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateSecretFile(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("readable by its group: got %v", err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateSecretFile(short); err == nil {
		t.Error("an empty file is a secret")
	}
	for _, c := range []struct {
		text    string
		atLeast int
		ok      bool
	}{
		{" \n", 0, false}, {"\n", 1, false}, {"x\n", 1, true}, {strings.Repeat("x", 31) + "\n", 32, false}, {strings.Repeat("x", 32), 32, true},
		{strings.Repeat("x", maxSecretBytes), 1, true}, {strings.Repeat("x", maxSecretBytes+1), 1, false},
	} {
		if err := os.WriteFile(short, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := LoadSecretFile(short, c.atLeast)
		if (err == nil) != c.ok || c.ok && string(s) != strings.TrimSpace(c.text) {
			t.Errorf("%d characters, %d needed: got %d, %v", len(c.text), c.atLeast, len(s), err)
		}
	}
	if _, err := LoadSecretFile(t.TempDir(), 1); err == nil {
		t.Error("a folder is a secret")
	}
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pipe.Close() }()
	_, err = w.WriteString("from a shell\n")
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err := LoadSecretFile(fmt.Sprintf("/dev/fd/%d", pipe.Fd()), 1); err != nil || string(s) != "from a shell" {
		t.Errorf("a pipe: %d characters, %v", len(s), err)
	}
	if _, err := LoadOrCreateSecretFile(filepath.Join(t.TempDir(), "no", "dir")); err == nil {
		t.Error("no folder, and no error")
	}
}

func TestBearer(t *testing.T) {
	reached := false
	h := func(token string) http.Handler {
		return Bearer(token)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))
	}
	for name, c := range map[string]struct {
		token, header string
		want          int
	}{
		"right": {"tok", "Bearer tok", 200}, "lower case": {"tok", "bearer tok", 200}, "wrong": {"tok", "Bearer tokk", 401},
		"none": {"tok", "", 401}, "basic": {"tok", "Basic tok", 401}, "bare": {"tok", "tok", 401},
		"no token set": {"", "Bearer ", 401}, "no token set, none sent": {"", "", 401},
	} {
		t.Run(name, func(t *testing.T) {
			reached = false
			r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
			if c.header != "" {
				r.Header.Set("Authorization", c.header)
			}
			h(c.token).ServeHTTP(w, r)
			if w.Code != c.want || reached != (c.want == 200) {
				t.Errorf("got %d, reached %v", w.Code, reached)
			}
			if c.want == 401 && (w.Header().Get("WWW-Authenticate") == "" || w.Header().Get("Content-Type") != "application/problem+json") {
				t.Errorf("headers %v", w.Header())
			}
		})
	}
}
