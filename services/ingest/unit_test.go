package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/auth"
	"github.com/dionysia-dev/dionysia/services/ingest/hook"
	"github.com/dionysia-dev/dionysia/services/stream"
)

var _ Secret = auth.Secret(nil)

// clock is a moment that tests move by seconds.
func clock(s float64) time.Time {
	return time.Unix(1_000_000, 0).Add(time.Duration(s * float64(time.Second)))
}

func listing(conn string, bytes uint64) []session {
	return []session{{Stream: "demo", Source: source{"rtmpConn", conn}, Conn: conn, Protocol: "rtmp", Ready: true, Bytes: bytes}}
}

func TestBookSilence(t *testing.T) {
	type step struct {
		at    float64
		bytes uint64 // 0: the poll failed
		busy  bool   // then, for another connection
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"sends all the time", []step{{0, 1, true}, {0.5, 2, true}, {1, 3, true}, {3, 4, true}, {5.5, 5, true}}},
		{"stops", []step{{0, 1, true}, {0.5, 2, true}, {1, 2, true}, {2, 2, true}, {2.4, 2, true}, {2.5, 2, false}}},
		{"stops and goes on", []step{{0, 1, true}, {0.5, 1, true}, {2, 1, false}, {2.5, 2, true}, {4, 2, true}}},
		{"is not seen", []step{{0, 1, true}, {0.5, 2, true}, {10, 0, true}, {10.5, 3, true}}},
		{"stops while it is not seen", []step{{0, 1, true}, {9, 0, true}, {9.5, 1, false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBook(2 * time.Second)
			for i, s := range c.steps {
				if s.bytes > 0 {
					b.listed(listing("a", s.bytes), clock(s.at))
				}
				w := b.look("demo", "b", clock(s.at))
				if got := w.Busy != nil; got != s.busy {
					t.Errorf("step %d at %v s: busy %v, want %v", i, s.at, got, s.busy)
				}
				if (w.Silent != nil) == s.busy {
					t.Errorf("step %d: silent %v", i, w.Silent)
				}
				if w := b.look("demo", "a", clock(s.at)); w.Busy != nil || w.Silent != nil {
					t.Errorf("step %d: it is in its own way: %+v", i, w)
				}
			}
		})
	}
}

func TestBookGrants(t *testing.T) {
	b := newBook(2 * time.Second)
	if w := b.look("demo", "a", clock(0)); w.takeover() || w.Busy != nil {
		t.Errorf("before the first list: %+v", w)
	}
	b.listed(nil, clock(0))
	b.grant(grant{Stream: "demo", Conn: "a", Protocol: "srt", at: clock(0)})
	if w := b.look("demo", "b", clock(1.9)); w.Busy == nil || w.Busy.Conn != "a" {
		t.Errorf("a grant of 1.9 s is nobody's: %+v", w)
	}
	if w := b.look("demo", "b", clock(2)); w.Busy != nil || w.Silent == nil || w.Silent.Conn != "a" {
		t.Errorf("a grant of 2 s without media: %+v", w)
	}
	b.grant(grant{Stream: "demo", Conn: "b", Protocol: "srt", at: clock(2)})
	c := b.listed(listing("a", 5), clock(2.5))
	if len(c.Kick) != 1 || c.Kick[0].Conn != "a" {
		t.Errorf("the one that lost its grant turned up and was not kicked: %+v", c)
	}
	c = b.listed(listing("b", 5), clock(3))
	if len(c.Kick) != 0 || len(c.Ended) != 1 || len(c.Started) != 1 {
		t.Errorf("b follows a: %+v", c)
	}
	if w := b.look("demo", "c", clock(3)); w.Busy == nil || w.takeover() {
		t.Errorf("b is sending: %+v", w)
	}
	b.gone("demo", "b", clock(3))
	for at, want := range map[float64]bool{3: true, 17: true, 18: false} {
		if w := b.look("demo", "c", clock(at)); w.Busy != nil || w.takeover() != want {
			t.Errorf("at %v s, gone at 3 s: %+v", at, w)
		}
	}
}

func TestGrants(t *testing.T) {
	g := newGrants(10 * time.Minute)
	mac := g.mac("demo", "sesame")
	if g.has("demo", mac, clock(0)) {
		t.Error("has what it was never told")
	}
	g.keep("demo", mac, clock(0))
	for _, c := range []struct {
		name, stream, key string
		at                float64
		want              bool
	}{
		{"soon", "demo", "sesame", 1, true},
		{"at its age", "demo", "sesame", 600, true},
		{"past its age", "demo", "sesame", 601, false},
		{"another key", "demo", "simsim", 1, false},
		{"another stream", "other", "sesame", 1, false},
	} {
		if got := g.has(c.stream, g.mac(c.stream, c.key), clock(c.at)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	g.touch([]session{{Stream: "demo"}}, clock(500)) // it is live
	if !g.has("demo", mac, clock(1000)) {
		t.Error("a live publisher's grant grew old")
	}
	g.forget("demo", g.mac("demo", "simsim"))
	if !g.has("demo", mac, clock(1000)) {
		t.Error("a wrong key took the right one's grant")
	}
	g.forget("demo", mac)
	if g.has("demo", mac, clock(1000)) {
		t.Error("a refused key kept its grant")
	}
	for i := range maxGrants + 10 {
		g.keep(fmt.Sprint(i), mac, clock(float64(i)))
	}
	if len(g.m) > maxGrants {
		t.Errorf("%d grants", len(g.m))
	}
}

func TestStreamOf(t *testing.T) {
	for path, want := range map[string]string{
		"live/demo": "demo", "live/a": "a", "live/a-b_c9": "a-b_c9", "live/" + strings.Repeat("x", 63): strings.Repeat("x", 63),
		"": "", "live": "", "live/": "", "demo": "", "live/demo/x": "", "live/..": "", "live/Demo": "", "live/demo ": "", "live/a:b": "",
		"live/a#b": "", "live/-a": "", "live/a-": "", "live//demo": "", "/live/demo": "", "live/" + strings.Repeat("x", 64): "", "live/dé": "", "live/a\x00": "",
	} {
		got, err := streamOf(path)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", path, got, err)
		}
		if want != "" && stream.CheckID(want) != nil {
			t.Errorf("%q: the stream's own grammar differs", path)
		}
	}
}

// TestAuthServer shows what the agent's own door lets in.
func TestAuthServer(t *testing.T) {
	a := quietAgent(t, "http://127.0.0.1:1")
	srv := httptest.NewServer(a.handler())
	defer srv.Close()
	hookPassword, mtxPassword := testSecret{}.Derive(labelHook), testSecret{}.Derive(labelMediaMTX)
	body := func(v map[string]string) string { b, _ := json.Marshal(v); return string(b) }
	for _, c := range []struct {
		name, path, user, password, body string
		want                             int
	}{
		{"no credentials", "/auth", "", "", "{}", 401},
		{"wrong password", "/auth", hookUser, "x", "{}", 401},
		{"the agent's credentials for mediamtx", "/auth", mediaMTXUser, mtxPassword, "{}", 401},
		{"malformed", "/auth", hookUser, hookPassword, "{", 400},
		{"too long", "/auth", hookUser, hookPassword, `{"path":"` + strings.Repeat("x", maxBody) + `"}`, 400},
		{"api, the agent's", "/auth", hookUser, hookPassword, body(map[string]string{"action": "api", "user": mediaMTXUser, "password": mtxPassword}), 204},
		{"api, nobody's", "/auth", hookUser, hookPassword, body(map[string]string{"action": "api"}), 401},
		{"api, the hook's", "/auth", hookUser, hookPassword, body(map[string]string{"action": "api", "user": hookUser, "password": hookPassword}), 401},
		{"pprof, nobody's", "/auth", hookUser, hookPassword, body(map[string]string{"action": "pprof"}), 401},
		{"playback", "/auth", hookUser, hookPassword, body(map[string]string{"action": "playback", "user": mediaMTXUser, "password": mtxPassword}), 401},
		{"unknown action", "/auth", hookUser, hookPassword, body(map[string]string{"action": "x"}), 401},
		{"publish, the api is away", "/auth", hookUser, hookPassword, body(map[string]string{"action": "publish", "path": "live/demo", "query": "key=k", "protocol": "rtmp", "id": "1"}), 401},
		{"read with a token", "/auth", hookUser, hookPassword, body(map[string]string{"action": "read", "path": "live/demo", "query": "token=read:live/demo"}), 204},
		{"read with a bearer token", "/auth", hookUser, hookPassword, body(map[string]string{"action": "read", "path": "live/demo", "token": "read:live/demo"}), 204},
		{"read another path", "/auth", hookUser, hookPassword, body(map[string]string{"action": "read", "path": "live/other", "query": "token=read:live/demo"}), 401},
		{"read a path that is none", "/auth", hookUser, hookPassword, body(map[string]string{"action": "read", "path": "x", "query": "token=read:x"}), 401},
		{"hook", "/hook/ready", hookUser, hookPassword, "{}", 204},
		{"hook without credentials", "/hook/ready", "", "", "{}", 401},
		{"hook of another name", "/hook/read", hookUser, hookPassword, "{}", 404},
		{"hook, malformed", "/hook/not-ready", hookUser, hookPassword, "[", 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.user != "" {
				req.SetBasicAuth(c.user, c.password)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != c.want {
				t.Errorf("%d, want %d", res.StatusCode, c.want)
			}
		})
	}
}

func quietAgent(t *testing.T, api string) *Agent {
	t.Helper()
	a, err := New(Config{Node: "node1", APIURL: api, MediaMTXAPI: "http://127.0.0.1:1", Secret: testSecret{}},
		Deps{Logger: hclog.NewNullLogger(), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestChallenge shows that RTSP's first try is no refusal, and the lack of a
// second one is.
func TestChallenge(t *testing.T) {
	a := quietAgent(t, "http://127.0.0.1:1")
	first := authRequest{Action: "publish", Path: "live/demo", Protocol: "rtsp", IP: "192.0.2.1", ID: "1"}
	v := a.authorize(t.Context(), first)
	if v.ok || !v.retry {
		t.Fatalf("%+v", v)
	}
	a.unanswered.asked(first, clock(0))
	if due := a.unanswered.due(clock(4)); len(due) != 0 {
		t.Errorf("%+v after 4 s", due)
	}
	second := first
	second.User, second.Password = "me", "sesame"
	if v := a.authorize(t.Context(), second); v.ok || v.retry || v.reason != reasonAway {
		t.Errorf("%+v", v)
	}
	if due := a.unanswered.due(clock(9)); len(due) != 0 {
		t.Errorf("%+v although answered", due)
	}
	a.unanswered.asked(first, clock(10))
	if due := a.unanswered.due(clock(15)); len(due) != 1 {
		t.Errorf("%+v, want one", due)
	}
}

// TestAPIAnswers shows how the api's answers are read.
func TestAPIAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		want   error
	}{
		{"granted", 200, `{"stream":"demo","grace_seconds":15}`, nil},
		{"busy", 409, `{"reason":"busy"}`, stream.ErrBusy},
		{"bad key", 403, `{"reason":"bad_key"}`, stream.ErrBadKey},
		{"disabled", 403, `{"reason":"disabled"}`, stream.ErrDisabled},
		{"unknown", 403, `{"reason":"unknown_stream"}`, stream.ErrNotFound},
		{"deleted", 403, `{"reason":"deleted_stream"}`, stream.ErrDeleted},
		{"forbidden, torn", 403, `{"reas`, stream.ErrBadKey},
		{"malformed request", 422, `{"detail":"stream: bad"}`, stream.ErrInvalid},
		{"its Redis is away", 503, `{"title":"Service Unavailable"}`, errAway},
		{"it crashes", 500, ``, errAway},
		{"our token is wrong", 401, `{}`, errAway},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer srv.Close()
			err := newAPIClient(srv.URL, "t", time.Second).publish(t.Context(), publishRequest{Stream: "demo"})
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// TestStateIsLost shows that a publisher whose key was accepted returns to a stream
// that the api has lost, and neither to one that was deleted nor with another key.
func TestStateIsLost(t *testing.T) {
	answer := `{"stream":"demo","grace_seconds":15}`
	status := 200
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	defer srv.Close()
	a := quietAgent(t, srv.URL)
	try := func(conn, key string) verdict {
		return a.authorize(t.Context(), authRequest{Action: "publish", Path: "live/demo", Protocol: "rtmp", IP: "192.0.2.1", ID: conn, Query: "key=" + key})
	}
	left := func(conn string) { a.book.gone("demo", conn, time.Now()) }
	if v := try("c1", "sesame"); !v.ok {
		t.Fatalf("%+v", v)
	}
	left("c1")
	status, answer = 403, `{"reason":"unknown_stream"}`
	if v := try("c2", "sesame"); !v.ok {
		t.Errorf("it returns to a stream that was lost: %+v", v)
	}
	left("c2")
	if v := try("c3", "another"); v.ok || v.reason != reasonUnknown {
		t.Errorf("another key: %+v", v)
	}
	if v := try("c4", "sesame"); !v.ok {
		t.Errorf("it returns once more: %+v", v)
	}
	left("c4")
	answer = `{"reason":"deleted_stream"}`
	if v := try("c5", "sesame"); v.ok || v.reason != reasonDeleted {
		t.Errorf("deleted: %+v", v)
	}
	answer = `{"reason":"unknown_stream"}`
	if v := try("c6", "sesame"); v.ok {
		t.Errorf("deleted and then lost: %+v", v)
	}
}

// TestSlowAPI shows that a hanging api is asked once, then left alone for a
// while: mediamtx stands still during each question.
func TestSlowAPI(t *testing.T) {
	asked := make(chan struct{}, 8)
	done := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-done
	}))
	defer srv.Close()
	defer close(done)
	c := newAPIClient(srv.URL, "t", 300*time.Millisecond)
	for range 3 {
		if err := c.publish(t.Context(), publishRequest{Stream: "demo"}); !errors.Is(err, errAway) {
			t.Errorf("%v", err)
		}
	}
	if len(asked) != 1 {
		t.Errorf("asked %d times", len(asked))
	}
}

func TestHook(t *testing.T) {
	var got hook.Event
	var auth, path string
	status := http.StatusNoContent
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth, path = r.Header.Get("Authorization"), r.URL.Path
		_ = json.NewDecoder(r.Body).Decode(&got)
		w.WriteHeader(status)
	}))
	defer srv.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + l.Addr().String()
	l.Close()
	env := map[string]string{hook.EnvURL: srv.URL + "/", hook.EnvToken: "t", "MTX_PATH": "live/demo",
		"MTX_SOURCE_ID": "id", "MTX_SOURCE_TYPE": "rtmpConn", "MTX_QUERY": "key=sesame"}
	run := func(args ...string) error {
		return hook.Run(context.Background(), args, func(k string) string { return env[k] })
	}
	if err := run("not-ready"); err != nil {
		t.Fatal(err)
	}
	if auth != "Bearer t" || path != "/hook/not-ready" || got != (hook.Event{Path: "live/demo", SourceType: "rtmpConn", SourceID: "id"}) {
		t.Errorf("%q %q %+v", auth, path, got)
	}
	for _, args := range [][]string{nil, {"on"}, {"ready", "x"}} {
		if run(args...) == nil {
			t.Errorf("%q: no error", args)
		}
	}
	status = http.StatusUnauthorized
	if run("ready") == nil {
		t.Error("refused, and no error")
	}
	env[hook.EnvURL] = nobody
	if err := run("ready"); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("away: %v", err)
	}
	delete(env, hook.EnvToken)
	if run("ready") == nil {
		t.Error("without a token, and no error")
	}
}
