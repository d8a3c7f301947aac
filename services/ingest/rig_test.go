package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/ingest/hook"
)

// wait is generous: the machine may be busy.
const wait = 30 * time.Second

// TestMain lets the test binary be the command that mediamtx runs as its hook.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "hook" {
		if err := hook.Run(context.Background(), os.Args[2:], os.Getenv); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// testSecret derives readable credentials and accepts tokens "read:<path>".
type testSecret struct{}

func (testSecret) Derive(label string) string { return "derived-" + label + "-$%&'" }
func (testSecret) VerifyReadToken(token, path string) error {
	if token != "read:"+path {
		return errors.New("not a token for this path")
	}
	return nil
}

// fakeAPI is the api's internal part as openapi.yaml has it, in memory.
type fakeAPI struct {
	*httptest.Server
	mu       sync.Mutex
	keys     map[string]string // stream → key
	disabled map[string]bool
	claims   map[string]fakeClaim
	asked    []publishRequest
	reports  []report
	kick     []string
	away     bool          // answers 503
	hang     chan struct{} // answers when it is closed
}

type fakeClaim struct {
	conn string
	at   time.Time
}

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{keys: map[string]string{"demo": "sesame", "other": "open"}, disabled: map[string]bool{}, claims: map[string]fakeClaim{}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(func() { f.CloseClientConnections(); f.Close() })
	return f
}

func (f *fakeAPI) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeAPI) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	away, hang := f.away, f.hang
	f.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if r.Header.Get("Authorization") != "Bearer "+(testSecret{}).Derive(labelInternalAPI) {
		problemOf(w, http.StatusUnauthorized, "")
		return
	}
	if away {
		problemOf(w, http.StatusServiceUnavailable, "")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case r.Method == http.MethodPost && r.URL.Path == "/internal/v1/ingest/publish":
		f.publish(w, r)
	case r.Method == http.MethodPost && r.URL.Path == "/internal/v1/ingest/release":
		var in releaseRequest
		_ = json.NewDecoder(r.Body).Decode(&in)
		if f.claims[in.Stream].conn == in.Conn {
			delete(f.claims, in.Stream)
		}
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut && r.URL.Path == "/internal/v1/ingest/nodes/node1":
		var in report
		_ = json.NewDecoder(r.Body).Decode(&in)
		f.reports = append(f.reports, in)
		for _, p := range in.Paths {
			if c, ok := f.claims[p.Stream]; !ok || c.conn == p.Session {
				f.claims[p.Stream] = fakeClaim{p.Session, time.Now()}
			}
		}
		_ = json.NewEncoder(w).Encode(reportReply{Kick: f.kick})
	default:
		problemOf(w, http.StatusNotFound, "")
	}
}

func (f *fakeAPI) publish(w http.ResponseWriter, r *http.Request) {
	var in publishRequest
	_ = json.NewDecoder(r.Body).Decode(&in)
	f.asked = append(f.asked, in)
	key, ok := f.keys[in.Stream]
	claim, claimed := f.claims[in.Stream]
	switch {
	case !ok:
		problemOf(w, http.StatusForbidden, "unknown_stream")
	case key != in.Key:
		problemOf(w, http.StatusForbidden, "bad_key")
	case f.disabled[in.Stream]:
		problemOf(w, http.StatusForbidden, "disabled")
	case claimed && claim.conn != in.Conn && !in.Takeover && time.Since(claim.at) < 10*time.Second:
		problemOf(w, http.StatusConflict, "busy")
	default:
		f.claims[in.Stream] = fakeClaim{in.Conn, time.Now()}
		_ = json.NewEncoder(w).Encode(map[string]any{"stream": in.Stream, "grace_seconds": 15})
	}
}

func problemOf(w http.ResponseWriter, status int, reason string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "reason": reason})
}

// path returns what the last report says of a stream.
func (f *fakeAPI) path(id string) (reportPath, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.reports) == 0 {
		return reportPath{}, false
	}
	for _, p := range f.reports[len(f.reports)-1].Paths {
		if p.Stream == id {
			return p, true
		}
	}
	return reportPath{}, false
}

// lastAsk returns the last question about publishing.
func (f *fakeAPI) lastAsk() publishRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return publishRequest{}
	}
	return f.asked[len(f.asked)-1]
}

// unkeyed counts the publishers of a stream that the api was told of and that
// had no key.
func (f *fakeAPI) unkeyed(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.asked {
		if r.Stream == id && r.Key == "" {
			n++
		}
	}
	return n
}

// rig is mediamtx with its agent and a fake api.
type rig struct {
	t     *testing.T
	api   *fakeAPI
	mtx   *testkit.MediaMTX
	cfg   Config
	log   *logTee
	agent *Agent
	reg   *prometheus.Registry
}

// logTee keeps the log for assertions and prints it when the test fails.
type logTee struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logTee) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logTee) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}

func (l *logTee) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newRig(t *testing.T, change ...func(*MediaMTXParams)) *rig {
	t.Helper()
	r := &rig{t: t, api: newFakeAPI(t), log: &logTee{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("--- the agent's log:\n%s", r.log)
		}
	})
	listen := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r.mtx = testkit.StartMediaMTX(t, func(p testkit.MediaMTXPorts) []byte {
		at := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
		params := MediaMTXParams{
			RTMP: at(p.RTMP), RTSP: at(p.RTSP), SRT: at(p.SRT), WebRTC: at(p.WebRTC), ICE: at(p.ICE),
			ICEHosts: []string{"127.0.0.1"}, API: at(p.API),
			AgentURL: "http://" + listen, Secret: testSecret{}, Hook: []string{self, "hook"},
		}
		for _, f := range change {
			f(&params)
		}
		b, err := MediaMTXConfig(params)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}, HookEnv("http://"+listen, testSecret{})...)
	r.cfg = Config{
		Listen: listen, Node: "node1", APIURL: r.api.URL, MediaMTXAPI: r.mtx.APIURL(),
		RTMPAddr: r.mtx.Addr(r.mtx.Ports.RTMP), RTSPAddr: r.mtx.Addr(r.mtx.Ports.RTSP), Secret: testSecret{},
	}
	r.start()
	return r
}

// start starts a new agent on the same address.
func (r *rig) start() {
	r.t.Helper()
	r.reg = prometheus.NewRegistry()
	agent, err := New(r.cfg, Deps{
		Logger:   hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: r.log}),
		Registry: r.reg,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := agent.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.agent = agent
	r.t.Cleanup(func() { r.stop(agent) })
	testkit.Eventually(r.t, wait, "the agent to list mediamtx's paths", func() error {
		if !agent.mtxHealth.ok(time.Now()) {
			return errors.New(agent.mtxHealth.why())
		}
		return nil
	})
}

func (r *rig) stop(a *Agent) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		r.t.Errorf("stopping the agent: %v", err)
	}
}

// push publishes a test picture with sound to a URL until the test ends.
func (r *rig) push(url string, more ...string) *testkit.Process {
	r.t.Helper()
	args := []string{"-nostdin", "-loglevel", "warning", "-re",
		"-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30", "-f", "lavfi", "-i", "sine=sample_rate=48000",
		"-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "30", "-pix_fmt", "yuv420p",
		"-c:a", "aac", "-t", "300"}
	switch {
	case strings.HasPrefix(url, "rtmp:"):
		args = append(args, "-f", "flv")
	case strings.HasPrefix(url, "rtsp:"):
		args = append(args, "-f", "rtsp", "-rtsp_transport", "tcp")
	case strings.HasPrefix(url, "srt:"):
		args = append(args, "-f", "mpegts")
	}
	cmd := exec.Command(testkit.Part(r.t, "DIONYSIA_FFMPEG", "ffmpeg"), append(append(args, more...), url)...)
	return testkit.StartProcess(r.t, "publisher", cmd)
}

func (r *rig) rtmp(id, key string) string {
	return fmt.Sprintf("rtmp://%s/live/%s?key=%s", r.mtx.Addr(r.mtx.Ports.RTMP), id, key)
}

// live waits until the api has been told that the stream is ready.
func (r *rig) live(id string) reportPath {
	r.t.Helper()
	var p reportPath
	testkit.Eventually(r.t, wait, id+" to be reported ready with bytes", func() error {
		var ok bool
		if p, ok = r.api.path(id); !ok || !p.Ready || p.BytesReceived == 0 {
			return fmt.Errorf("last report: %+v", p)
		}
		return nil
	})
	return p
}

// refused waits until a publisher has ended and the log names the reason.
func (r *rig) refused(p *testkit.Process, reason string) {
	r.t.Helper()
	select {
	case <-p.Done():
	case <-time.After(wait):
		r.t.Fatalf("the publisher was not refused (%s expected)", reason)
	}
	testkit.Eventually(r.t, wait, "the refusal "+reason+" in the log", func() error {
		if !strings.Contains(r.log.String(), "reason="+reason) {
			return errors.New("not there")
		}
		return nil
	})
}
