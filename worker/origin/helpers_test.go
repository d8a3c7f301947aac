package origin

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/stream"
)

const wait = 30 * time.Second

// fakeStore keeps one tail per stream; it can be away, and knows of fences.
type fakeStore struct {
	mu      sync.Mutex
	away    bool
	fenced  map[string]uint64 // the placement's epoch
	tails   map[string]*stream.Tail
	appends []uint64
	loads   int
}

func newFakeStore() *fakeStore {
	return &fakeStore{fenced: map[string]uint64{}, tails: map[string]*stream.Tail{}}
}

func (s *fakeStore) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *fakeStore) begin(ctx context.Context) (func(), error) {
	s.mu.Lock()
	if s.away {
		s.mu.Unlock()
		<-ctx.Done() // what a Redis that does not answer looks like
		return nil, ctx.Err()
	}
	return s.mu.Unlock, nil
}

func (s *fakeStore) tail(id, broadcast string) *stream.Tail {
	t := s.tails[id]
	if t == nil {
		t = &stream.Tail{Runs: map[string]stream.Run{}}
		s.tails[id] = t
	}
	if t.Broadcast != broadcast {
		*t = stream.Tail{Broadcast: broadcast, Runs: map[string]stream.Run{}, Last: t.Last}
	}
	return t
}

func (s *fakeStore) SaveRun(ctx context.Context, id string, run stream.Run) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	s.tail(id, run.Broadcast).Runs[run.ID.String()] = run
	return nil
}

func (s *fakeStore) AppendSegment(ctx context.Context, id, broadcast string, seg stream.Segment, window time.Duration) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if s.fenced[id] > seg.Run.Epoch {
		return fmt.Errorf("appending: %w", stream.ErrFenced)
	}
	t := s.tail(id, broadcast)
	if seg.Number <= t.Last {
		return fmt.Errorf("number %d after %d: %w", seg.Number, t.Last, stream.ErrConflict)
	}
	if _, ok := t.Runs[seg.Run.String()]; !ok {
		return fmt.Errorf("run %s was not saved: %w", seg.Run, stream.ErrInvalid)
	}
	if seg.Number != t.Last+1 {
		t.Segments = nil
	}
	t.Segments, t.Last = append(t.Segments, seg), seg.Number
	s.appends = append(s.appends, seg.Number)
	return nil
}

func (s *fakeStore) LoadTail(ctx context.Context, id string) (stream.Tail, error) {
	end, err := s.begin(ctx)
	if err != nil {
		return stream.Tail{}, err
	}
	defer end()
	s.loads++
	if t := s.tails[id]; t != nil {
		out := *t
		out.Runs, out.Segments = maps.Clone(t.Runs), slices.Clone(t.Segments)
		return out, nil
	}
	return stream.Tail{}, stream.ErrNotFound
}

func (s *fakeStore) EndTail(ctx context.Context, id string, _ uint64) error {
	end, err := s.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if t := s.tails[id]; t != nil {
		t.Ended = true
	}
	return nil
}

// clock is a settable time.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// media is a ladder's files, made by ffmpeg: two video renditions and one audio
// rendition, at 29.97 frames per second.
type media struct {
	dir    string
	ladder stream.Ladder
	n      int // segments
}

func makeMedia(t testing.TB, seconds int) media {
	t.Helper()
	dir := t.TempDir()
	hls := func(name string) []string {
		return []string{"-f", "hls", "-hls_time", "2", "-hls_segment_type", "fmp4", "-hls_list_size", "0", "-start_number", "1",
			"-hls_fmp4_init_filename", name + "_init.mp4", "-hls_segment_filename", filepath.Join(dir, name+"_%d.m4s"),
			filepath.Join(dir, name+".m3u8")}
	}
	args := []string{"-v", "error", "-y", "-f", "lavfi", "-i", "testsrc2=s=320x180:r=30000/1001",
		"-f", "lavfi", "-i", "sine=440:sample_rate=48000"}
	for _, v := range []struct{ name, size string }{{"180p", "320x180"}, {"90p", "160x90"}} {
		args = append(args, "-map", "0:v", "-t", fmt.Sprint(seconds), "-s", v.size, "-c:v", "libx264", "-preset", "ultrafast",
			"-g", "60", "-keyint_min", "60", "-sc_threshold", "0", "-pix_fmt", "yuv420p", "-threads", "1")
		args = append(args, hls(v.name)...)
	}
	args = append(args, "-map", "1:a", "-t", fmt.Sprint(seconds), "-c:a", "aac", "-ac", "2", "-b:a", "64k")
	args = append(args, hls("aac")...)
	if out, err := exec.Command(testkit.Part(t, "DIONYSIA_FFMPEG", "ffmpeg"), args...).CombinedOutput(); err != nil {
		t.Fatalf("making media: %v\n%s", err, out)
	}
	fps := stream.Rate{Num: 30000, Den: 1001}
	return media{dir: dir, n: seconds / 2, ladder: stream.Ladder{
		Video: []stream.OutVideo{
			{Name: "180p", Codec: "h264", Width: 320, Height: 180, FPS: fps, GOP: 60, Bitrate: 300_000},
			{Name: "90p", Codec: "h264", Width: 160, Height: 90, FPS: fps, GOP: 60, Bitrate: 100_000}},
		Audio: []stream.OutAudio{{Name: "aac", Codec: "aac", Bitrate: 64_000, Channels: 2, SampleRate: 48000}},
	}}
}

var all = []string{"180p", "90p", "aac"}

func (m media) read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// world is an origin with its store and a directory.
type world struct {
	t      testing.TB
	origin *Origin
	store  *fakeStore
	media  media
	clock  *clock // nil: the real one
}

func newWorld(t testing.TB, m media, store *fakeStore, c *clock) *world {
	t.Helper()
	cfg := Config{ID: "w1", Dir: filepath.Join(t.TempDir(), "runs"), Store: store, StoreTimeout: 50 * time.Millisecond, Poll: 200 * time.Millisecond,
		Logger: hclog.New(&hclog.LoggerOptions{Output: testWriter{t}, Level: hclog.Debug})}
	if c != nil {
		cfg.Now = c.Now
	}
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return &world{t: t, origin: o, store: store, media: m, clock: c}
}

// again is a new process in the place of a killed one: only the files and the
// store remain.
func (w *world) again() *world {
	w.t.Helper()
	w.origin.Close()
	o, err := New(w.origin.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(o.Close)
	return &world{t: w.t, origin: o, store: w.store, media: w.media, clock: w.clock}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

func placement(id string, epoch uint64, start time.Time) stream.Placement {
	return stream.Placement{Stream: id, Broadcast: "b1", Epoch: epoch, Worker: "w1", BroadcastStart: start,
		Window: 30, HoldBack: 12, Grace: 15, Profile: stream.Profile{Segment: 2}}
}

// run is a run whose files the test writes.
type testRun struct {
	*RunHandle
	w   *world
	dir string
}

func (w *world) start(p stream.Placement, run uint32) testRun {
	w.t.Helper()
	return w.startFull(p, run, nil)
}

func (w *world) startFull(p stream.Placement, run uint32, full []stream.OutVideo) testRun {
	w.t.Helper()
	id := stream.RunID{Epoch: p.Epoch, Run: run}
	dir := filepath.Join(w.origin.cfg.Dir, p.Stream, id.String())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	return testRun{w.origin.StartRun(RunStart{Placement: p, ID: id, Dir: dir, Ladder: w.media.ladder, Full: full}), w, dir}
}

func (r testRun) write(name string, b []byte) {
	r.w.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), b, 0o644); err != nil {
		r.w.t.Fatal(err)
	}
}

// inits writes the init segments; segment writes number n of the renditions.
func (r testRun) inits(names ...string) {
	for _, n := range names {
		r.write(n+"_init.mp4", r.w.media.read(r.w.t, n+"_init.mp4"))
	}
}

func (r testRun) segment(n int, names ...string) {
	r.w.t.Helper()
	for _, name := range names {
		r.write(fmt.Sprintf("%s_%d.m4s", name, n), r.w.media.read(r.w.t, fmt.Sprintf("%s_%d.m4s", name, n)))
	}
}

// answer is a response with its body read.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

func (w *world) do(method, path string, header ...string) answer {
	w.t.Helper()
	req := httptest.NewRequest(method, "http://origin/", nil)
	req.URL.Opaque = path
	req.RequestURI = path
	if u, err := req.URL.Parse(path); err == nil {
		req.URL = u
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	rec := httptest.NewRecorder()
	w.origin.ServeHTTP(rec, req)
	return answer{rec.Code, rec.Header(), rec.Body.Bytes()}
}

func (w *world) get(path string, header ...string) (int, string) {
	w.t.Helper()
	res := w.do(http.MethodGet, path, header...)
	return res.code, string(res.body)
}

// eventually waits until path answers code and its body passes.
func (w *world) eventually(path string, code int, check func(body string) bool) string {
	w.t.Helper()
	var body string
	testkit.Eventually(w.t, wait, fmt.Sprintf("%s to answer %d", path, code), func() error {
		c, b := w.get(path)
		body = b
		if c != code || check != nil && !check(b) {
			return fmt.Errorf("%d %s", c, b)
		}
		return nil
	})
	return body
}
