package kit

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Process is one entry of /proc.
type Process struct {
	Pid, PPid int
	State     byte
	Start     uint64 // clock ticks since boot: tells a reused pid
	CPU       uint64 // clock ticks of user and system time, its own
	RSS       int64  // bytes
	Args      []string
}

// String returns pid and command line.
func (p Process) String() string { return fmt.Sprintf("%d %s", p.Pid, strings.Join(p.Args, " ")) }

// Exe returns the base name of the program.
func (p Process) Exe() string {
	if len(p.Args) == 0 {
		return ""
	}
	name, _, _ := strings.Cut(filepath.Base(p.Args[0]), " ") // Redis and nginx write a title there
	return name
}

// Processes lists what runs, zombies left out.
func Processes() []Process {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var all []Process
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		if p, ok := ReadProcess(pid); ok && p.State != 'Z' {
			all = append(all, p)
		}
	}
	return all
}

// ReadProcess reads one process from /proc.
func ReadProcess(pid int) (Process, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Process{}, false
	}
	// The name in parentheses may hold spaces: count from the last ')'.
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(f) < 22 {
		return Process{}, false
	}
	num := func(i int) uint64 { n, _ := strconv.ParseUint(f[i], 10, 64); return n }
	p := Process{
		Pid: pid, PPid: int(num(1)), State: f[0][0], Start: num(19),
		CPU: num(11) + num(12), RSS: int64(num(21)) * int64(os.Getpagesize()),
	}
	cmdline, _ := os.ReadFile(dir + "/cmdline")
	for _, a := range bytes.Split(bytes.TrimRight(cmdline, "\x00"), []byte{0}) {
		p.Args = append(p.Args, string(a))
	}
	return p, true
}

// Descendants returns the processes below pid, without it.
func Descendants(pid int) []Process {
	all := Processes()
	in := map[int]bool{pid: true}
	var found []Process
	for grew := true; grew; {
		grew = false
		for _, p := range all {
			if in[p.PPid] && !in[p.Pid] {
				in[p.Pid], grew = true, true
				found = append(found, p)
			}
		}
	}
	return found
}

// Watchdog remembers every descendant that a process ever had, so that one that
// was orphaned, changed its group or cleaned its environment is still found.
type Watchdog struct {
	root int
	dir  string
	env  string
	stop chan struct{}
	done chan struct{}

	mu   sync.Mutex
	seen map[int]uint64 // pid → start
}

// NewWatchdog watches the descendants of root every 200 ms until Close. dir is a
// path that only root's processes name in their command line or work in, and
// env a value of MarkerEnv that only they carry; either may be empty.
func NewWatchdog(root int, dir, env string) *Watchdog {
	w := &Watchdog{root: root, dir: dir, env: env, seen: map[int]uint64{},
		stop: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

func (w *Watchdog) run() {
	defer close(w.done)
	for {
		w.look()
		select {
		case <-w.stop:
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (w *Watchdog) look() {
	found := Descendants(w.root)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range found {
		w.seen[p.Pid] = p.Start
	}
}

// Close stops watching.
func (w *Watchdog) Close() {
	select {
	case <-w.stop:
	default:
		close(w.stop)
	}
	<-w.done
}

// Left returns the processes that root started, or that carry its marks, and
// that still run. root itself is among them while it runs.
func (w *Watchdog) Left() []Process {
	w.look()
	w.mu.Lock()
	defer w.mu.Unlock()
	var left []Process
	for _, p := range Processes() {
		start, seen := w.seen[p.Pid]
		if p.Pid != os.Getpid() && ((seen && start == p.Start) || w.marked(p)) {
			left = append(left, p)
		}
	}
	return left
}

func (w *Watchdog) marked(p Process) bool {
	if w.dir != "" {
		if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", p.Pid)); err == nil && within(cwd, w.dir) {
			return true
		}
		for _, a := range p.Args {
			if strings.Contains(a, w.dir) {
				return true
			}
		}
	}
	if w.env != "" {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.Pid))
		if err != nil {
			return false
		}
		for _, kv := range bytes.Split(env, []byte{0}) {
			if string(kv) == MarkerEnv+"="+w.env {
				return true
			}
		}
	}
	return false
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, dir+string(filepath.Separator))
}

// ExpectNoneLeft fails t when processes are still there after limit; it kills
// them then, by pid, so that they can't disturb the next test.
func (w *Watchdog) ExpectNoneLeft(t T, limit time.Duration) {
	t.Helper()
	err := Wait(context.Background(), limit, func() error {
		if left := w.Left(); len(left) > 0 {
			return fmt.Errorf("left behind: %v", left)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%v", err)
		for _, p := range w.Left() {
			if proc, err := os.FindProcess(p.Pid); err == nil {
				_ = proc.Kill()
			}
		}
	}
	w.Close()
}
