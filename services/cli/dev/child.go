package dev

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/services/ingest"
)

// child is one third-party server run as a child process: in a process group
// of its own, so that a Ctrl-C in the terminal reaches only Dionysia, and tied
// to Dionysia's life by PR_SET_PDEATHSIG, so that even kill -9 leaves nothing.
type child struct {
	name   string
	log    hclog.Logger
	stop   syscall.Signal // what asks it to leave
	dir    string         // the log file's folder
	done   chan struct{}
	cmd    *exec.Cmd
	mu     sync.Mutex
	err    error
	last   []string // its last lines, for the error of an early exit
	copied sync.WaitGroup
}

const lastLines = 12

// start runs argv and returns once the process exists. Its output goes to
// <dir>/<name>.log.
func startChild(log hclog.Logger, name, dir string, stop syscall.Signal, env []string, argv ...string) (*child, error) {
	f, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	c := &child{name: name, log: log.Named(name), stop: stop, dir: dir, done: make(chan struct{})}
	c.cmd = exec.Command(argv[0], argv[1:]...)
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	c.cmd.Stdout, c.cmd.Stderr = w, w

	started := make(chan error, 1)
	// The parent-death signal is sent when the *thread* that started the child
	// ends, so the thread is kept for the child's whole life.
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.cmd.Start()
		_ = w.Close()
		started <- err
		if err != nil {
			return
		}
		werr := c.cmd.Wait()
		c.copied.Wait()
		c.mu.Lock()
		c.err = werr
		c.mu.Unlock()
		close(c.done)
	}()
	c.copied.Add(1)
	go func() {
		defer c.copied.Done()
		c.copyLog(r, f)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	c.log.Debug("started", "pid", c.cmd.Process.Pid)
	return c, nil
}

func (c *child) copyLog(r io.ReadCloser, f *os.File) {
	defer func() { _ = r.Close(); _ = f.Close() }()
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), 1<<20)
	for s.Scan() {
		line := ingest.Redact(s.Text()) // mediamtx prints stream ids it can't parse, keys and all
		_, _ = fmt.Fprintln(f, line)
		c.mu.Lock()
		c.last = append(c.last, line)
		if len(c.last) > lastLines {
			c.last = c.last[1:]
		}
		c.mu.Unlock()
	}
}

// exited returns an error when the process has ended.
func (c *child) exited() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	why := "exited"
	if c.err != nil {
		why = c.err.Error()
	}
	return fmt.Errorf("%s ended: %s; its last lines:\n    %s\n(the whole log: %s)", c.name, why,
		strings.Join(c.last, "\n    "), filepath.Join(c.dir, c.name+".log"))
}

// waitReady polls probe until it succeeds, the child ends or ctx does.
func (c *child) waitReady(ctx context.Context, probe func(context.Context) error) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	var last error
	for {
		pctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		last = probe(pctx)
		cancel()
		if last == nil {
			return nil
		}
		select {
		case <-c.done:
			return c.exited()
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last answer: %w)", c.name, ctx.Err(), last)
		case <-t.C:
		}
	}
}

// close asks the process to leave and kills its group after patience.
func (c *child) close(patience time.Duration) {
	select {
	case <-c.done:
		return
	default:
	}
	_ = c.cmd.Process.Signal(c.stop)
	select {
	case <-c.done:
	case <-time.After(patience):
		c.log.Warn("did not stop in time; killing it", "pid", c.cmd.Process.Pid)
		if err := syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			c.log.Error("killing it failed", "error", err)
		}
		<-c.done
	}
}
