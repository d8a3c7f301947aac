package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// open returns a store with its two roles on two servers.
func open(t testing.TB) (s *store.Store, state, live *testkit.Redis) {
	t.Helper()
	state, live = testkit.NewRedis(t), testkit.NewRedis(t)
	return openURL(t, state.URL(0), live.URL(0)), state, live
}

func openURL(t testing.TB, state, live string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{StateURL: state, LiveURL: live, Registerer: prometheus.NewRegistry(),
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: testWriter{t}})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil { // not after the test's end
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

func demo(id string) stream.Stream {
	return stream.Stream{ID: id, Name: "Test", Profile: "720p", Grace: 15, HoldBack: 12, Window: 60}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

// A malformed URL's error does not show the password.
func TestOpenHidesThePassword(t *testing.T) {
	for _, url := range []string{"redis://:hunter2@127.0.0.1:x/0", "http://:hunter2@h/", "redis://:hunter2@h/no-db"} {
		_, err := store.Open(t.Context(), store.Options{StateURL: url})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", url, err)
		}
	}
}

// One server may play both roles, and two stores may share a registry.
func TestOneServer(t *testing.T) {
	r := testkit.NewRedis(t)
	reg := prometheus.NewRegistry()
	for range 2 {
		s, err := store.Open(t.Context(), store.Options{StateURL: r.URL(0), Registerer: reg})
		must(t, err)
		must(t, s.Ping(t.Context()))
		must(t, s.Close())
	}
	families, err := reg.Gather()
	must(t, err)
	if len(families) == 0 {
		t.Fatal("no metrics")
	}
}
