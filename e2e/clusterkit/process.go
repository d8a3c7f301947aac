package clusterkit

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// Processes returns the ids, as they are here, of a host's processes whose command
// line contains the words, joined by spaces.
func (c *Cluster) Processes(t kit.T, host, words string) []int {
	t.Helper()
	init, err := os.ReadFile(filepath.Join(c.Dir, "pid", "host-"+host))
	if err != nil {
		t.Fatalf("%v", err)
	}
	first, _, _ := strings.Cut(string(init), " ")
	space, err := os.Readlink(filepath.Join("/proc", first, "ns", "pid"))
	if err != nil {
		t.Fatalf("host %s: %v", host, err)
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatalf("%v", err)
	}
	var out []int
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// One that ends meanwhile has neither.
		if its, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns", "pid")); err != nil || its != space {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && strings.Contains(strings.ReplaceAll(string(line), "\x00", " "), words) {
			out = append(out, pid)
		}
	}
	return out
}
