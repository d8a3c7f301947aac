package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// alone runs a test in a process of its own: a process can load one NVML only. In
// that process it returns true.
func alone(t *testing.T) bool {
	t.Helper()
	const variable = "DIONYSIA_TEST_ALONE"
	if os.Getenv(variable) == t.Name() {
		return true
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=15m")
	cmd.Env = append(os.Environ(), variable+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a process of its own: %v\n%s", err, out)
	}
	return false
}

// clock is a time that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// encoders runs GPAC with x264 and x265 in place of a card's encoders, which no
// test machine has; AV1 stays, and fails as it does with Debian's GPAC.
type encoders struct {
	mu      sync.Mutex
	run     Runner
	refused string   // what GPAC prints instead of encoding, "" to encode
	tried   []string // the encoders
}

func softwareEncoders(t *testing.T) *encoders {
	return &encoders{run: runDirectly(testkit.Part(t, "DIONYSIA_GPAC", "gpac"))}
}

var inSoftware = strings.NewReplacer("c=h264_nvenc:", "c=libx264:", "c=hevc_nvenc:", "c=libx265:", "preset=p3:tune=ll:", "preset=ultrafast:tune=zerolatency:", ":gpu=0", "")

func (e *encoders) Run(ctx context.Context, dir string, cmd gpac.Command) ([]byte, time.Duration, error) {
	e.mu.Lock()
	refused := e.refused
	for i, a := range cmd.Args {
		encoder, _, _ := strings.Cut(strings.TrimPrefix(a, "ffenc:c="), ":")
		switch {
		case !strings.HasPrefix(a, "ffenc:"):
			continue
		case strings.HasSuffix(encoder, "_nvenc"):
			e.tried = append(e.tried, encoder)
			if !slices.ContainsFunc(cmd.Env, func(v string) bool { return strings.HasPrefix(v, "CUDA_VISIBLE_DEVICES=GPU-") }) {
				refused = "no CUDA_VISIBLE_DEVICES"
			}
			if encoder != "av1_nvenc" {
				cmd.Args[i] = inSoftware.Replace(a)
			}
		}
	}
	e.mu.Unlock()
	if refused != "" {
		return []byte("GPAC\n[FFEnc] " + refused + "\n"), 0, &exec.ExitError{ProcessState: &os.ProcessState{}}
	}
	return e.run(ctx, dir, cmd)
}

func (e *encoders) refuse(words string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refused = words
}

func (e *encoders) tries() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.tried)
}

// manager starts one with a configured CPU, which leaves GPAC to the GPUs.
func manager(t *testing.T, cfg Config) *Manager {
	t.Helper()
	if cfg.CacheDir == "" {
		cfg.CacheDir = t.TempDir()
	}
	if cfg.CPUCapacity == 0 {
		cfg.CPUCapacity = 1e9
	}
	cfg.GPAC = testkit.Part(t, "DIONYSIA_GPAC", "gpac")
	if cfg.GPACVersion.Text == "" {
		cfg.GPACVersion = gpac.Version{Major: 1, Text: "1.0.1"}
	}
	m, err := NewManager(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.Start(t.Context())
	t.Cleanup(m.Stop)
	return m
}

// patience is for self-tests of several cards, one after the other, on a machine that
// does other things too.
const patience = 2 * time.Minute

// await waits until a device is as check wants it, and returns it.
func await(t *testing.T, m *Manager, id, what string, check func(d capacity.Device) bool) capacity.Device {
	t.Helper()
	var last capacity.Device
	testkit.Eventually(t, patience, id+": "+what, func() error {
		var r capacity.Report
		m.Fill(&r)
		d, ok := r.Device(id)
		last = d
		switch {
		case !ok:
			return fmt.Errorf("no such device; NVML %q", r.NVML)
		case !check(d):
			return fmt.Errorf("it is %+v, GPU %+v; NVML %q", d, d.GPU, r.NVML)
		}
		return nil
	})
	return last
}

func usable(d capacity.Device) bool { return d.Usable }

// refusedFor matches a device that is not usable for a reason that has these words.
func refusedFor(words string) func(capacity.Device) bool {
	return func(d capacity.Device) bool {
		return !d.Usable && len(d.Reason) < 250 && strings.Contains(d.Reason, words)
	}
}

// awaitNVML waits for what the report says of the library.
func awaitNVML(t *testing.T, m *Manager, words string) {
	t.Helper()
	testkit.Eventually(t, patience, "NVML "+words, func() error {
		var r capacity.Report
		m.Fill(&r)
		if !strings.Contains(r.NVML, words) {
			return errors.New(r.NVML)
		}
		return nil
	})
}

// logged keeps what is logged while others write it.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
