package transcode

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Limits of a GPAC process beside its run directory's.
const (
	maxFileBytes = 1 << 29 // one file, RLIMIT_FSIZE: far above any segment
	maxOpenFiles = 512     // RLIMIT_NOFILE
	// flushTimeout is how long GPAC may take to write what it holds.
	flushTimeout = 3 * time.Second
)

// Jail says as whom and how GPAC runs.
type Jail struct {
	// prefix is the chain of programs that ends in GPAC's own.
	prefix []string
	// UID and GID own the run directories; -1 leaves them alone.
	UID, GID int
}

// NewJail prepares to run programs without any privilege: as the named user
// when this process is root, and always with no-new-privileges, killed when
// this process dies, and with limits on files. It needs setpriv and prlimit of
// util-linux.
func NewJail(username string) (Jail, error) {
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		return Jail{}, fmt.Errorf("setpriv (util-linux) is needed to run GPAC: %w", err)
	}
	prlimit, err := exec.LookPath("prlimit")
	if err != nil {
		return Jail{}, fmt.Errorf("prlimit (util-linux) is needed to run GPAC: %w", err)
	}
	j := Jail{UID: -1, GID: -1, prefix: []string{setpriv, "--no-new-privs", "--pdeathsig", "KILL"}}
	if os.Geteuid() == 0 {
		u, err := user.Lookup(cmp.Or(username, "nobody"))
		if err != nil {
			return Jail{}, fmt.Errorf("looking up the user for GPAC: %w", err)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2); err != nil {
			return Jail{}, fmt.Errorf("looking up the user for GPAC: %w", err)
		}
		if uid == 0 {
			return Jail{}, fmt.Errorf("GPAC must not run as %s (uid 0)", username)
		}
		j.UID, j.GID = uid, gid
		j.prefix = append(j.prefix, "--reuid", u.Uid, "--regid", u.Gid, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")
	}
	j.prefix = append(j.prefix, "--", prlimit, "--core=0", fmt.Sprintf("--fsize=%d", int64(maxFileBytes)), fmt.Sprintf("--nofile=%d", maxOpenFiles), "--")
	return j, nil
}

// spawner starts processes from one operating system thread that lives as long
// as this process: a parent-death signal is tied to the thread that forked, not
// to the process, and Go ends idle threads.
type spawner struct{ jobs chan func() }

func newSpawner() *spawner {
	s := &spawner{jobs: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range s.jobs { // never closed: its end would kill the children
			f()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	done := make(chan error)
	s.jobs <- func() { done <- cmd.Start() }
	return <-done
}

// process is one GPAC in a process group of its own.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	exit  chan struct{} // closed when it has been waited for
	err   error         // Wait's; read after exit
	once  sync.Once
}

// startProcess starts program with args in dir. Its output goes to log.
func (s *spawner) startProcess(j Jail, program string, args, env []string, dir string, log io.Writer) (*process, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("starting GPAC: %w", err)
	}
	argv := append(append(append([]string{}, j.prefix...), path), args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	// Relative: GPAC's user may not be able to walk down to dir.
	cmd.Env = append(append([]string{}, env...), "HOME=.", "TMPDIR=.")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = processAttr()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("starting GPAC: %w", err)
	}
	if err := s.start(cmd); err != nil {
		return nil, fmt.Errorf("starting GPAC: %w", err)
	}
	p := &process{cmd: cmd, stdin: stdin, exit: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		// Nothing of its group outlives it.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		close(p.exit)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the whole group at once and waits.
func (p *process) kill() {
	select {
	case <-p.exit:
		return
	default:
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.exit
}

// stop lets GPAC write what it holds, then ends it: 1.0.1 asks on stdin whether
// to flush when it gets SIGINT, and dies of SIGTERM without.
func (p *process) stop() {
	p.once.Do(func() {
		_, _ = io.WriteString(p.stdin, "Y\n")
		_ = p.cmd.Process.Signal(syscall.SIGINT)
	})
	select {
	case <-p.exit:
	case <-time.After(flushTimeout):
		p.kill()
	}
}

// how describes the end of the process.
func (p *process) how() string {
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return "exited 0"
	case errors.As(p.err, &exit):
		return exit.String()
	}
	return p.err.Error()
}
