// Package kit is the harness of the end-to-end tests and of the benchmarks: it
// starts `dionysia dev` as an operator would, publishes to it by every
// protocol, watches what it publishes, and judges that with ffprobe, ffmpeg and
// real players in headless Chromium.
//
// Everything that it starts runs in a process group of its own and carries an
// environment marker, so that what is left behind can be found.
package kit

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// T is the part of testing.TB that the kit needs; the benchmarks bring their
// own.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
	TempDir() string
	Name() string
}

// Eventually calls f every 100 ms until it returns nil, and fails t with its
// last error when that takes longer than limit.
func Eventually(t T, limit time.Duration, what string, f func() error) {
	t.Helper()
	if err := Wait(context.Background(), limit, f); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
}

// Wait calls f every 100 ms until it returns nil. It returns f's last error when
// limit passes or ctx ends first.
func Wait(ctx context.Context, limit time.Duration, f func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Part returns the path of a third-party program: the environment variable
// DIONYSIA_<NAME>, or the program found on PATH. A part that is missing fails
// t: a test that can't run proves nothing.
func Part(t T, env, name string) string {
	t.Helper()
	p, err := FindPart(env, name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}

// FindPart is Part with an error instead of a failure.
func FindPart(env, name string) (string, error) {
	if p := os.Getenv(env); p != "" {
		return p, nil
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is missing (set %s to its path, or run `make parts`): %w", name, env, err)
	}
	return p, nil
}

// The parts that the tests use themselves.
func FFmpeg(t T) string   { return Part(t, "DIONYSIA_FFMPEG", "ffmpeg") }
func FFprobe(t T) string  { return Part(t, "DIONYSIA_FFPROBE", "ffprobe") }
func Chromium(t T) string { return Part(t, "DIONYSIA_CHROMIUM", "chromium") }

// WebDir returns the folder that holds hls.min.js and dash.all.min.js.
func WebDir(t T) string {
	t.Helper()
	d := os.Getenv("DIONYSIA_WEB_DIR")
	if d == "" {
		t.Fatalf("DIONYSIA_WEB_DIR is not set: it names the folder with hls.min.js and dash.all.min.js")
	}
	for _, f := range []string{"hls.min.js", "dash.all.min.js"} {
		if _, err := os.Stat(filepath.Join(d, f)); err != nil {
			t.Fatalf("DIONYSIA_WEB_DIR: %v", err)
		}
	}
	return d
}

// RepoRoot returns the folder that holds go.mod.
func RepoRoot() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

var buildOnce = sync.OnceValues(func() (string, error) {
	if p := os.Getenv("DIONYSIA_BIN"); p != "" {
		return filepath.Abs(p)
	}
	out := filepath.Join(RepoRoot(), "bin", "dionysia")
	cmd := exec.Command("go", "build", "-o", out, ".")
	cmd.Dir = RepoRoot()
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building dionysia: %w\n%s", err, b)
	}
	return out, nil
})

// Binary builds dionysia once per test process and returns its path; the
// environment variable DIONYSIA_BIN names one that is already built.
func Binary(t T) string {
	t.Helper()
	p, err := buildOnce()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}

// FreePort returns a port that is this process's alone until its end, for TCP and
// UDP.
func FreePort() (int, error) { return FreeBase(1) }

// FreeBase returns the first of n successive ports, as FreePort does.
func FreeBase(n int) (int, error) {
	c, err := testkit.ClaimPorts(n)
	if err != nil {
		return 0, err
	}
	return c.First, nil
}
