package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// What a cluster without root has started is found and ended, also where a parent
// begins a child anew for each that ends, and others at a SIGHUP, and neither has the
// mark, as it is with nginx.
func TestWhatBeginsAgainIsEnded(t *testing.T) {
	state := t.TempDir()
	script, err := filepath.Abs("dev.sh")
	if err != nil {
		t.Fatal(err)
	}
	// The children's argument tells them apart from everything else on this machine.
	id := fmt.Sprintf("3600.%d", os.Getpid())
	parent := fmt.Sprintf(`trap "sleep %[1]s &" HUP; while :; do sleep %[1]s & sleep %[1]s & sleep %[1]s & echo up; wait -n; kill $(jobs -p); done`, id)
	const parents = 20
	agent := exec.Command("bash", "-c", `set -m; for ((n = 0; n < $1; n++)); do env -i PATH="$PATH" bash -c "$2" & done; wait`, "agent", strconv.Itoa(parents), parent)
	agent.Env = []string{"PATH=" + os.Getenv("PATH"), "DIONYSIA_CLUSTER_OF=" + state}
	agent.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
		for _, name := range children(t, id) { // of a test that failed
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	for range parents {
		if _, err := fmt.Fscanln(out, new(string)); err != nil {
			t.Fatal(err)
		}
	}
	down := exec.Command("bash", "-euc", `stop() { :; }; die() { echo "$*" >&2; exit 1; }; . "$1"; processes_down`, "down", script)
	down.Env = []string{"PATH=" + os.Getenv("PATH"), "state=" + state, "top=/top", "port=1"}
	if out, err := down.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left := children(t, id); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// children finds the processes with the argument id in /proc.
func children(t *testing.T, id string) (found []string) {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	for _, name := range lines {
		line, _ := os.ReadFile(name) // gone when it can't be read
		if args := strings.Split(string(line), "\x00"); args[0] == "sleep" && args[1] == id {
			found = append(found, name)
		}
	}
	return found
}
