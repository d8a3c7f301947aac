// Package device finds what encodes on this host, the CPU and GPUs with NVENC, and
// how much of it there is.
package device

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// CPUID is the id of the host's CPU as a device.
const CPUID = "cpu"

// Headroom is the share of a measured speed that placements may use: what is
// left is for peaks, packaging and serving.
const Headroom = 0.8

// CPU is the host's processor.
type CPU struct {
	Model string
	Cores int // logical cores that this process may use
}

// ProbeCPU reads the processor's name (its architecture where the kernel gives
// none) and the number of cores.
func ProbeCPU() CPU {
	c := CPU{Model: runtime.GOARCH, Cores: runtime.NumCPU()}
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return c
	}
	for line := range strings.Lines(string(b)) {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == "model name" {
			c.Model = strings.TrimSpace(v)
			break
		}
	}
	return c
}

// loadMeter measures the share of all cores' time that is busy.
type loadMeter struct {
	busy, total uint64
	seen        bool
}

// sample returns the busy share, 0 to 1, since the last call, and false at the
// first call, where /proc/stat can't be read, and when no time has passed.
func (m *loadMeter) sample() (float64, bool) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	busy, total, err := parseStat(string(b))
	if err != nil {
		return 0, false
	}
	db, dt, seen := busy-m.busy, total-m.total, m.seen
	m.busy, m.total, m.seen = busy, total, true
	if !seen || dt == 0 || db > dt {
		return 0, false
	}
	return float64(db) / float64(dt), true
}

// parseStat reads the first line of /proc/stat, proc_stat(5): user nice system
// idle iowait irq softirq steal, and guest times that user and nice hold already.
func parseStat(s string) (busy, total uint64, err error) {
	line, _, _ := strings.Cut(s, "\n")
	f := strings.Fields(line)
	if len(f) < 5 || f[0] != "cpu" {
		return 0, 0, errors.New("reading /proc/stat: no cpu line")
	}
	for i, v := range f[1:min(len(f), 9)] {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("reading /proc/stat: %w", err)
		}
		total += n
		if i != 3 && i != 4 { // idle, iowait
			busy += n
		}
	}
	return busy, total, nil
}

// clockTicks is USER_HZ, which is 100 on every platform that Go runs Linux on.
const clockTicks = 100

// ProcessCPU returns the CPU time that a process has used so far, without its
// children's.
func ProcessCPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the CPU time of process %d: %w", pid, err)
	}
	// The name, in parentheses, may hold anything: count from its end.
	_, rest, ok := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, fmt.Errorf("reading the CPU time of process %d: %q", pid, b)
	}
	user, err1 := strconv.ParseUint(f[11], 10, 64)
	sys, err2 := strconv.ParseUint(f[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return 0, fmt.Errorf("reading the CPU time of process %d: %w", pid, err)
	}
	return time.Duration(user+sys) * time.Second / clockTicks, nil
}
