package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
)

const (
	adminToken    = "admin-token-of-the-test"
	internalToken = "internal-token-of-the-test"
)

// harness is an api on a real store on a real Redis.
type harness struct {
	t     testing.TB
	redis *testkit.Redis
	store *store.Store
	url   string
	logs  *logBuffer
}

func newHarness(t testing.TB) *harness {
	t.Helper()
	return newHarnessWith(t, placement.DefaultPolicy())
}

func newHarnessWith(t testing.TB, policy placement.Policy) *harness {
	t.Helper()
	h := &harness{t: t, redis: testkit.NewRedis(t), logs: &logBuffer{}}
	logger := hclog.New(&hclog.LoggerOptions{Output: h.logs, Level: hclog.Trace})
	var err error
	h.store, err = store.Open(t.Context(), store.Options{
		StateURL: h.redis.URL(0), LiveURL: h.redis.URL(1), Logger: logger, Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	t.Cleanup(func() { _ = h.store.Close() })
	server := New(Config{Listen: "127.0.0.1:0", AdminToken: adminToken, InternalToken: internalToken, Policy: policy},
		Deps{Store: h.store, Logger: logger})
	if err := server.Start(t.Context()); err != nil {
		t.Fatalf("starting: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Errorf("stopping: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the api:\n%s", h.logs.String())
		}
	})
	h.url = "http://" + server.Addr()
	return h
}

// answer is a response that was read.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
}

// do sends a request with the token that its path needs. A body that is a
// string or a []byte goes as it is, any other as JSON.
func (h *harness) do(method, path string, body any, headers ...string) answer {
	h.t.Helper()
	token := adminToken
	if strings.HasPrefix(path, "/internal/") {
		token = internalToken
	}
	return send(h.t, method, h.url+path, body, append([]string{"Authorization", "Bearer " + token}, headers...)...)
}

func send(t testing.TB, method, url string, body any, headers ...string) answer {
	t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	case []byte:
		reader = bytes.NewReader(b)
	default:
		encoded, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		reader = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, url, reader)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(r) // follows no redirect
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: reading: %v", method, url, err)
	}
	return answer{t: t, status: res.StatusCode, header: res.Header, body: b}
}

// want checks the status.
func (a answer) want(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d; body: %s", a.status, status, a.body)
	}
	return a
}

// problem checks that the answer is a well-formed problem document.
func (a answer) problem(status int) wire.Problem {
	a.t.Helper()
	a.want(status)
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		a.t.Errorf("Content-Type %q; body: %s", got, a.body)
	}
	p := decoded[wire.Problem](a)
	if p.Status != status || p.Title == "" || p.Detail == "" || p.Instance == "" ||
		!strings.HasPrefix(p.Type, problemType) {
		a.t.Errorf("incomplete problem document: %s", a.body)
	}
	for _, leak := range []string{"wire.", "json: ", "redis", "Redis", "cannot unmarshal", "dionysia:stream", "goroutine", ".go:", "127.0.0.1", adminToken, internalToken} {
		if strings.Contains(string(a.body), leak) {
			a.t.Errorf("the problem document leaks %q: %s", leak, a.body)
		}
	}
	return p
}

func decoded[T any](a answer) T {
	a.t.Helper()
	var v T
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		a.t.Fatalf("decoding %s: %v", a.body, err)
	}
	return v
}

// create makes a stream and returns its key.
func (h *harness) create(id string) wire.StreamWithKey {
	h.t.Helper()
	return decoded[wire.StreamWithKey](h.do("POST", "/v1/streams", map[string]any{"id": id}).want(http.StatusCreated))
}

// handlerOnly serves s without a store: what fails before the store is asked.
func handlerOnly(t *testing.T) string {
	t.Helper()
	s := New(Config{AdminToken: adminToken, InternalToken: internalToken}, Deps{})
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	return server.URL
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
