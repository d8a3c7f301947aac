package worker

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hibiken/asynq"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/services/task"
	"github.com/dionysia-dev/dionysia/worker/device"
)

// deadline is generous: two cores may be shared with everything else.
const deadline = 60 * time.Second

// rig is a worker with real Redis, mediamtx and GPAC, and a test that plays the
// controller.
type rig struct {
	t     *testing.T
	redis *testkit.Redis
	store *store.Store
	wrap  func(Store) Store // what the worker gets for it; nil: as it is
	taker time.Duration     // the worker's takerAge; 0: as it is
	mtx   *testkit.MediaMTX
	w     *Worker
	dir   string
}

func mtxConfig(p testkit.MediaMTXPorts) []byte {
	return fmt.Appendf(nil, `logLevel: info
api: yes
apiAddress: 127.0.0.1:%d
rtmpAddress: 127.0.0.1:%d
rtspAddress: 127.0.0.1:%d
rtspTransports: [tcp]
hls: no
webrtc: no
srt: no
authInternalUsers:
- user: any
  permissions: [{action: publish}, {action: read}]
paths: {all_others: {}}
`, p.API, p.RTMP, p.RTSP)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, redis: testkit.NewRedis(t), mtx: testkit.StartMediaMTX(t, mtxConfig), dir: t.TempDir()}
	st, err := store.Open(context.Background(), store.Options{StateURL: r.redis.URL(0), LiveURL: r.redis.URL(1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	r.store = st
	return r
}

// config is a worker's in this rig, also for one in a process of its own.
func (r *rig) config() Config {
	return Config{ID: "w1", Listen: "127.0.0.1:0", GPAC: testkit.Part(r.t, "DIONYSIA_GPAC", "gpac"), CPUCapacity: 1 << 40, NVML: device.NVMLOff,
		RunDir: filepath.Join(r.dir, "runs"), CacheDir: filepath.Join(r.dir, "cache"), Secret: []byte("a test's secret of thirty-two bytes")}
}

// start starts the worker in this process.
func (r *rig) start(change ...func(*Config)) *rig {
	r.t.Helper()
	cfg := r.config()
	for _, f := range change {
		f(&cfg)
	}
	queue, err := asynq.ParseRedisURI(r.redis.URL(1))
	if err != nil {
		r.t.Fatal(err)
	}
	var used Store = r.store
	if r.wrap != nil {
		used = r.wrap(used)
	}
	w, err := New(cfg, Deps{Store: used, Queue: queue, Logger: hclog.New(&hclog.LoggerOptions{Output: testWriter{r.t}, Level: hclog.Debug})})
	if err != nil {
		r.t.Fatal(err)
	}
	w.takerAge = cmp.Or(r.taker, w.takerAge)
	if err := w.Start(context.Background()); err != nil {
		r.t.Fatal(err)
	}
	r.w = w
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		w.Stop(ctx)
		if left := gpacs(r.dir); len(left) > 0 {
			r.t.Errorf("left running after Stop: %v", left)
		}
	})
	return r
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// clipLength is longer than any test here looks at one publisher.
const clipLength = time.Minute

// publish sends a test picture for clipLength, or until the returned process is
// stopped. What ffmpeg would have to encode is encoded before.
func (r *rig) publish(id string, args ...string) *testkit.Process {
	r.t.Helper()
	if len(args) == 0 {
		args = picture("640x360", "30000/1001", true)
	}
	ffmpeg := testkit.Part(r.t, "DIONYSIA_FFMPEG", "ffmpeg")
	target := []string{"-f", "flv", fmt.Sprintf("rtmp://%s/live/%s", r.mtx.Addr(r.mtx.Ports.RTMP), id)}
	if n := len(args) - 1; args[n] == "rtsp" {
		args = args[:n-1]
		target = []string{"-f", "rtsp", "-rtsp_transport", "tcp", fmt.Sprintf("rtsp://%s/live/%s", r.mtx.Addr(r.mtx.Ports.RTSP), id)}
	}
	if slices.Contains(args, "lavfi") {
		clip, err := testkit.Clip(ffmpeg, clipLength, args...)
		if err != nil {
			r.t.Fatal(err)
		}
		args = []string{"-re", "-i", clip, "-map", "0", "-c", "copy"}
	}
	args = append(args, target...)
	cmd := exec.Command(ffmpeg, append([]string{"-hide_banner", "-loglevel", "warning"}, args...)...)
	return testkit.StartProcess(r.t, "publisher", cmd)
}

// picture is ffmpeg's arguments for a moving picture with a tone.
func picture(size, rate string, audio bool) []string {
	args := []string{"-re", "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=%s:rate=%s", size, rate)}
	if audio {
		args = append(args, "-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-c:a", "aac", "-b:a", "96k", "-ac", "2")
	}
	return append(args, "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", "30", "-b:v", "800k")
}

// ladder is a profile of two rungs and audio.
func ladder() stream.Profile {
	v := func(name string, w, h int, rate int64) stream.VideoRendition {
		return stream.VideoRendition{Name: name, Codec: "h264", Width: w, Height: h, Bitrate: rate, Keyframe: 2, Preset: "ultrafast"}
	}
	return stream.Profile{Name: "test", Segment: 2, Video: []stream.VideoRendition{v("high", 480, 270, 400_000), v("low", 256, 144, 150_000)},
		Audio: []stream.AudioRendition{{Name: "aac", Codec: "aac", Bitrate: 64_000, Channels: 2}}}
}

// place commits a placement on the worker and enqueues its task.
func (r *rig) place(id, boot string, change ...func(*stream.Placement)) uint64 {
	r.t.Helper()
	ctx := context.Background()
	p := stream.Placement{Stream: id, Broadcast: "b-" + id, Worker: "w1", Device: "cpu", Boot: boot, Reserved: []stream.Reservation{{Resource: "cpu", Amount: 1}}, State: stream.PlacementPlaced,
		Source: stream.Source{Node: "n", Session: "s", RTMP: fmt.Sprintf("rtmp://%s/live/%s", r.mtx.Addr(r.mtx.Ports.RTMP), id),
			RTSP: fmt.Sprintf("rtsp://%s/live/%s", r.mtx.Addr(r.mtx.Ports.RTSP), id)},
		Profile: ladder(), Grace: 15, HoldBack: 12, Window: 60, BroadcastStart: time.Now().UTC(), CommittedAt: time.Now().UTC()}
	for _, f := range change {
		f(&p)
	}
	expect := uint64(0)
	if old, err := r.store.Placement(ctx, id); err == nil {
		expect = old.Epoch
	}
	epoch, err := r.store.Commit(ctx, store.Proposal{Placement: p, Limits: []capacity.Limit{{Limit: 1 << 40}}, ExpectEpoch: expect})
	if err != nil {
		r.t.Fatal(err)
	}
	queue, err := asynq.ParseRedisURI(r.redis.URL(1))
	if err != nil {
		r.t.Fatal(err)
	}
	client := asynq.NewClient(queue)
	defer func() { _ = client.Close() }()
	tk, err := task.NewStart(p.Worker, task.Start{Stream: id, Epoch: epoch})
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := client.Enqueue(tk); err != nil {
		r.t.Fatal(err)
	}
	return epoch
}

// get fetches a path of the origin.
func (r *rig) get(addr, path string) (int, string) {
	resp, err := http.Get("http://" + addr + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// waitSegments waits until a playlist lists at least n segments.
func (r *rig) waitSegments(id, rendition string, n int) string {
	r.t.Helper()
	var list string
	testkit.Eventually(r.t, deadline, fmt.Sprintf("%d segments of %s/%s", n, id, rendition), func() error {
		code, body := r.get(r.w.Addr(), "/live/"+id+"/"+rendition+"/index.m3u8")
		if got := strings.Count(body, "#EXTINF"); code != http.StatusOK || got < n {
			return fmt.Errorf("status %d, %d segments: %.300s", code, got, body)
		}
		list = body
		return nil
	})
	return list
}

// waitStatus waits until the run's status passes check.
func (r *rig) waitStatus(id, what string, check func(stream.RunStatus) bool) stream.RunStatus {
	r.t.Helper()
	var s stream.RunStatus
	testkit.Eventually(r.t, deadline, what, func() error {
		var err error
		if s, err = r.store.Status(context.Background(), id); err != nil {
			return err
		}
		if !check(s) {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
	return s
}

// waitEvent waits for an entry of the stream's history.
func (r *rig) waitEvent(id, typ string) stream.Event {
	r.t.Helper()
	var found stream.Event
	testkit.Eventually(r.t, deadline, "event "+typ, func() error {
		list, err := r.store.Events(context.Background(), id, "", 100)
		if err != nil {
			return err
		}
		for _, e := range list {
			if e.Type == typ {
				found = e
				return nil
			}
		}
		return fmt.Errorf("events: %v", list)
	})
	return found
}

// gpacs returns the processes whose working directory is under dir.
func gpacs(dir string) map[int]string {
	out := map[int]string{}
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, l := range links {
		to, err := os.Readlink(l)
		if err != nil || !strings.HasPrefix(to, dir) {
			continue
		}
		cmd, _ := os.ReadFile(filepath.Join(filepath.Dir(l), "cmdline"))
		if len(cmd) == 0 { // it has ended and waits to be collected
			continue
		}
		var pid int
		_, _ = fmt.Sscanf(l, "/proc/%d/cwd", &pid)
		out[pid] = strings.ReplaceAll(string(cmd), "\x00", " ")
	}
	return out
}

// gpac waits for exactly one GPAC in its own program, not its wrappers.
func (r *rig) gpac() int {
	r.t.Helper()
	pid := 0
	testkit.Eventually(r.t, deadline, "one GPAC", func() error {
		all := gpacs(r.dir)
		for p, cmd := range all {
			exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p))
			if err == nil && len(all) == 1 && strings.Contains(filepath.Base(exe), "gpac") {
				pid = p
				return nil
			}
			_ = cmd
		}
		return fmt.Errorf("processes: %v", all)
	})
	return pid
}
