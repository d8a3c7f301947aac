package kit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// MarkerEnv is the environment variable that marks every process the kit
// starts, and, by inheritance, theirs.
const MarkerEnv = "DIONYSIA_E2E"

// Proc is a process that a test started, in a process group of its own.
type Proc struct {
	Name string
	Cmd  *exec.Cmd
	Log  string // file with its stdout and stderr

	done chan struct{}
	err  error
	mu   sync.Mutex
	sent bool // we signalled it: its exit is expected
}

// ProcOption changes how Start starts a process.
type ProcOption func(*exec.Cmd)

// WithEnv adds variables, "NAME=value", to the process's environment.
func WithEnv(kv ...string) ProcOption {
	return func(c *exec.Cmd) { c.Env = append(c.Env, kv...) }
}

// WithDir sets the process's working directory.
func WithDir(dir string) ProcOption { return func(c *exec.Cmd) { c.Dir = dir } }

// WithStdout sends its stdout to w instead of the log.
func WithStdout(w io.Writer) ProcOption { return func(c *exec.Cmd) { c.Stdout = w } }

// Start starts a process, kills its group when the test ends, and prints the
// tail of its log if the test failed.
func Start(t T, name string, argv []string, opts ...ProcOption) *Proc {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), filepath.Base(name)+"-*.log")
	if err != nil {
		t.Fatalf("creating the log of %s: %v", name, err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), MarkerEnv+"="+marker(t))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for _, o := range opts {
		o(cmd)
	}
	p := &Proc{Name: name, Cmd: cmd, Log: log.Name(), done: make(chan struct{})}
	err = cmd.Start()
	_ = log.Close()
	if err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("---- %s (%s)\n%s", name, p.Exit(), without(Tail(p.Log, 20_000), "ERROR:dbus/"))
		}
	})
	return p
}

// Pid returns its process id, which is also its group's.
func (p *Proc) Pid() int { return p.Cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Running reports whether it has not ended yet.
func (p *Proc) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends sig to the process alone.
func (p *Proc) Signal(sig syscall.Signal) {
	p.mu.Lock()
	p.sent = true
	p.mu.Unlock()
	if p.Running() {
		_ = p.Cmd.Process.Signal(sig)
	}
}

// Stop sends sig and waits for the end; it is an error when that takes longer
// than limit.
func (p *Proc) Stop(sig syscall.Signal, limit time.Duration) error {
	p.Signal(sig)
	select {
	case <-p.done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s still runs %v after %v\n%s", p.Name, limit, sig, Tail(p.Log, 4000))
	}
}

// Kill kills the whole process group and waits for the process's end.
func (p *Proc) Kill() {
	if p.Running() {
		_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	}
	<-p.done
}

// Exit says how it ended.
func (p *Proc) Exit() string {
	if p.Running() {
		return "running"
	}
	if p.err == nil {
		return "exit status 0"
	}
	return p.err.Error()
}

// ExitCode returns its exit status once it has ended: -1 when a signal ended
// it or when it still runs.
func (p *Proc) ExitCode() int {
	if p.Running() {
		return -1
	}
	var e *exec.ExitError
	if errors.As(p.err, &e) {
		return e.ExitCode()
	}
	if p.err != nil {
		return -1
	}
	return 0
}

// Tail returns the last n bytes of a file, from a line's start.
func Tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(b) > n {
		b = b[len(b)-n:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return string(b)
}

func marker(t T) string { return fmt.Sprintf("%d-%s", os.Getpid(), t.Name()) }

func killPid(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }

// without leaves out the lines that hold noise.
func without(text, noise string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if !strings.Contains(line, noise) {
			out.WriteString(line)
		}
	}
	return out.String()
}
