package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hibiken/asynq"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// helperEnv makes the test binary a worker of its own: its configuration as JSON.
const helperEnv = "DIONYSIA_TEST_WORKER"

type helperConfig struct {
	Config      Config
	Secret      []byte // Config's own is not shown by JSON
	State, Live string
}

func TestMain(m *testing.M) {
	if conf := os.Getenv(helperEnv); conf != "" {
		if err := runHelper(conf); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runHelper(conf string) error {
	var c helperConfig
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	st, err := store.Open(ctx, store.Options{StateURL: c.State, LiveURL: c.Live})
	if err != nil {
		return err
	}
	queue, err := asynq.ParseRedisURI(c.Live)
	if err != nil {
		return err
	}
	c.Config.Secret = c.Secret
	w, err := New(c.Config, Deps{Store: st, Queue: queue, Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Debug})})
	if err != nil {
		return err
	}
	if err := w.Start(ctx); err != nil {
		return err
	}
	fmt.Println("boot", w.Boot())
	<-ctx.Done()
	w.Stop(context.Background())
	return nil
}

// helper starts a worker in a process of its own, after one of the boot id before.
func (r *rig) helper(before string) (*testkit.Process, string) {
	r.t.Helper()
	cfg := r.config()
	b, err := json.Marshal(helperConfig{Config: cfg, Secret: cfg.Secret, State: r.redis.URL(0), Live: r.redis.URL(1)})
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+string(b))
	p := testkit.StartProcess(r.t, "worker", cmd)
	boot := ""
	testkit.Eventually(r.t, deadline, "the worker's report", func() error {
		reports, err := r.store.Reports(context.Background())
		if err != nil {
			return err
		}
		for _, rep := range reports {
			if rep.Age < time.Second && rep.Ready && rep.Boot != before {
				boot = rep.Boot
				return nil
			}
		}
		return fmt.Errorf("reports %v", reports)
	})
	return p, boot
}

func TestKilledWorkerLeavesNoGPAC(t *testing.T) {
	r := newRig(t)
	r.publish("demo")
	p, boot := r.helper("")
	r.place("demo", boot)
	r.waitStatus("demo", "a running stream", func(s stream.RunStatus) bool { return s.State == stream.RunRunning })
	r.gpac()
	// Only the worker: its children are in groups of their own.
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 5*time.Second, "GPAC's end", func() error {
		if left := gpacs(r.dir); len(left) > 0 {
			return fmt.Errorf("left running: %v", left)
		}
		return nil
	})
	// It comes back with another boot id and does not take up what it held.
	_, second := r.helper(boot)
	epoch := r.place("demo", second)
	r.waitStatus("demo", "the stream at its new epoch", func(s stream.RunStatus) bool {
		return s.State == stream.RunRunning && s.Epoch == epoch
	})
}

// A publisher whose picture changes size without a reconnect goes on as a new run.
func TestFormatChangesInMidStream(t *testing.T) {
	r := newRig(t).start()
	dir := t.TempDir()
	var list string
	for i, size := range []string{"640x360", "320x240"} {
		file := filepath.Join(dir, fmt.Sprintf("%d.ts", i))
		args := append([]string{"-hide_banner", "-loglevel", "error"}, picture(size, "25", false)[1:]...)
		out, err := exec.Command(testkit.Part(t, "DIONYSIA_FFMPEG", "ffmpeg"), append(args, "-t", "15", file)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		list += "|" + file
	}
	r.publish("demo", "-re", "-i", "concat:"+list[1:], "-c", "copy", "-f", "rtsp")
	r.place("demo", r.w.Boot())
	r.waitStatus("demo", "the first size", func(s stream.RunStatus) bool {
		return s.State == stream.RunRunning && s.Run == 1 && s.Renditions[0].Width == 480
	})
	r.waitEvent("demo", "run.format_changed")
	r.waitStatus("demo", "the second size", func(s stream.RunStatus) bool {
		return s.State == stream.RunRunning && s.Run == 2 && s.Renditions[0].Width == 192
	})
}

// A publisher that sends what no decoder can read, in a track that looks right.
func TestGarbageIsRestartedAndEnds(t *testing.T) {
	r := newRig(t).start(func(c *Config) { c.StartTimeout = 3 * time.Second })
	file := filepath.Join(t.TempDir(), "g.ts")
	args := append([]string{"-hide_banner", "-loglevel", "error"}, picture("320x240", "25", false)[1:]...)
	out, err := exec.Command(testkit.Part(t, "DIONYSIA_FFMPEG", "ffmpeg"), append(args, "-t", "60", file)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// Every slice's payload becomes noise; parameter sets stay.
	r.publish("demo", "-re", "-i", file, "-c", "copy", "-bsf:v", "filter_units=remove_types=1|5", "-f", "rtsp")
	r.place("demo", r.w.Boot())
	testkit.Eventually(t, deadline, "a run that failed and was tried again, or a probe that says why", func() error {
		s, err := r.store.Status(context.Background(), "demo")
		if err != nil {
			return err
		}
		if s.LastError == "" || s.State == stream.RunRunning {
			return fmt.Errorf("status %+v", s)
		}
		return nil
	})
}
