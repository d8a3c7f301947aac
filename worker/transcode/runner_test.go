package transcode

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// What tests a device runs as runs do: without privileges, in its own directory.
func TestRunner(t *testing.T) {
	j, err := NewJail("")
	if err != nil {
		t.Fatal(err)
	}
	run := Runner(j, "sh")
	sh := func(ctx context.Context, script string) (string, time.Duration, error) {
		out, cpu, err := run(ctx, t.TempDir(), gpac.Command{Args: []string{"-c", script}, Files: map[string]string{"in.yuv": "picture"},
			Env: append(gpac.Env(gpu1), "X=y")})
		return string(out), cpu, err
	}
	out, _, err := sh(t.Context(), `cat in.yuv; echo " $CUDA_VISIBLE_DEVICES"; grep NoNewPrivs /proc/self/status; id -u >&2; touch made`)
	if err != nil || !strings.HasPrefix(out, "picture GPU-00000000-0000-0000-0000-000000000001\nNoNewPrivs:\t1\n") {
		t.Errorf("%q, %v", out, err)
	}
	if os.Geteuid() == 0 && strings.HasSuffix(out, "\n0\n") {
		t.Errorf("it ran as root: %q", out)
	}
	var exit *exec.ExitError
	if _, _, err := sh(t.Context(), "exit 3"); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Error(err)
	}
	if _, cpu, err := sh(t.Context(), "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"); err != nil || cpu <= 0 {
		t.Errorf("%s, %v", cpu, err)
	}
	if out, _, err := sh(t.Context(), "head -c 3000000 /dev/zero"); err != nil || len(out) != maxLogBytes {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := sh(ctx, "sleep 600"); !errors.As(err, &exit) {
		t.Errorf("it was not ended: %v", err)
	}
	if _, _, err := Runner(j, filepath.Join(t.TempDir(), "none"))(t.Context(), t.TempDir(), gpac.Command{}); err == nil {
		t.Error("a program that is not there ran")
	}
}
