package e2e

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// kill -9 of everything at once leaves no process behind, and what was
// acknowledged is there again after a new start: stream, key and numbering.
func TestCrash(t *testing.T) {
	realTime(t)
	d := kit.StartDev(t, kit.DevOptions{})
	key := newStream(t, d, kit.StreamSpec{ID: "show", Grace: 5})
	pub := kit.Publish(t, kit.Picture{}, d.RTMPTarget("show", key))
	w := kit.WatchHLS(t, d.Master("show"), goesLive)
	w.WaitSegments(t, 3, goesLive)
	last := w.Newest()
	w.Close()

	d.Crash()
	d.Dog.ExpectNoneLeft(t, 10*time.Second)
	pub.Kill()

	again := kit.StartDev(t, kit.DevOptions{DataDir: d.DataDir})
	kit.Publish(t, kit.Picture{}, again.RTMPTarget("show", key))
	w = kit.WatchHLS(t, again.Master("show"), goesLive)
	w.WaitSegments(t, 3, goesLive)
	w.Close()
	for _, tr := range w.Tracks() {
		for n, k := range tr.Segs {
			if n <= last && strings.Contains(k.URL, "/e1r") {
				continue // still listed from before the crash
			}
			if n <= last {
				t.Errorf("number %d is used again: %s", n, k.URL)
			}
		}
	}
	w.ExpectClean(t)
}

// Each thing that is wrong at the start gives one clear line that says what,
// and which flag helps, and leaves nothing running.
func TestStartErrors(t *testing.T) {
	realTime(t)
	bin := kit.Binary(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	_, port, _ := net.SplitHostPort(busy.Addr().String())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dir  string
		args []string
		want []string
	}{
		"port in use":            {args: []string{"--router-port", port}, want: []string{port, "--router-port"}},
		"missing part":           {args: []string{"--gpac", "/nonexistent/gpac"}, want: []string{"GPAC"}},
		"unwritable data folder": {dir: filepath.Join(file, "data"), want: []string{"data directory", "--data-dir"}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			dir := c.dir
			if dir == "" {
				dir = kit.DataDir(t)
			}
			cmd := exec.Command(bin, append(kit.DevArgs(t, dir, false), c.args...)...)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			done := make(chan error, 1)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			go func() { done <- cmd.Wait() }()
			dog := kit.NewWatchdog(cmd.Process.Pid, dir, "")
			select {
			case err := <-done:
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() <= 0 {
					t.Errorf("exit: %v", err)
				}
			case <-time.After(aWhile):
				_ = cmd.Process.Kill()
				t.Errorf("it still runs after %v", aWhile)
			}
			if err := contains(out.String(), c.want...); err != nil {
				t.Errorf("%v", err)
			}
			if n := len(strings.Split(strings.TrimSpace(out.String()), "\n")); n > 3 {
				t.Errorf("%d lines where one would do:\n%s", n, &out)
			}
			dog.ExpectNoneLeft(t, 10*time.Second)
		})
	}
}
