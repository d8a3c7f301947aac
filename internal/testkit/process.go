package testkit

import (
	"bytes"
	"errors"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Process is a child process of a test, in a process group of its own.
type Process struct {
	name string
	cmd  *exec.Cmd
	log  *logBuffer
	done chan struct{} // closed when it has been waited for
	err  error         // of Wait; read it after done
}

// StartProcess starts cmd with its output collected. When the test ends the
// process group is killed and waited for; when the test failed, the last 64 KiB
// of the output are logged. The kernel kills it when the test binary dies.
func StartProcess(t testing.TB, name string, cmd *exec.Cmd) *Process {
	t.Helper()
	p, err := startProcess(name, cmd)
	if err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("--- output of %s (%v):\n%s", name, cmd.Args[0], p.Output())
		}
	})
	return p
}

func startProcess(name string, cmd *exec.Cmd) (*Process, error) {
	p := &Process{name: name, cmd: cmd, log: &logBuffer{limit: 64 << 10}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = 2 * time.Second // a grandchild may hold the pipe
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended and has been waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns what Wait returned; it blocks until the process has ended.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// awaitReady is Eventually for a server that has just been started; one that
// ends meanwhile fails the test at once.
func (p *Process) awaitReady(t testing.TB, timeout time.Duration, name string, check func() error) {
	t.Helper()
	Eventually(t, timeout, name, func() error {
		select {
		case <-p.done:
			t.Fatalf("%s ended at start: %v", name, p.Err())
		default:
		}
		return check()
	})
}

// Output returns what was written to stdout and stderr, the last 64 KiB of it.
func (p *Process) Output() string { return p.log.String() }

// Signal sends sig to the process alone, not to its group.
func (p *Process) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Kill kills the process group with SIGKILL and waits. Calling it again is
// harmless.
func (p *Process) Kill() {
	select {
	case <-p.done: // its id may belong to another process by now
		return
	default:
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); errors.Is(err, syscall.ESRCH) {
		_ = p.cmd.Process.Kill()
	}
	<-p.done
}

// Stop sends SIGTERM to the process, waits up to timeout, then kills the group.
// It reports whether SIGTERM was enough.
func (p *Process) Stop(timeout time.Duration) bool {
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return true
	case <-time.After(timeout):
		p.Kill()
		return false
	}
}

// logBuffer keeps the last limit bytes written to it.
type logBuffer struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	limit int
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p)
	if over := b.buf.Len() - b.limit; over > 0 {
		b.buf.Next(over)
	}
	return len(p), nil
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
