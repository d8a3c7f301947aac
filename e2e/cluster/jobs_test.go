package cluster_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// jobFiles validates and plans every job file, as it runs here, as it is, and
// with the variables that change its shape.
func (c *cluster) jobFiles(t *testing.T) {
	for _, job := range jobs {
		c.Run(t, "job", "validate", job)
		// It runs already, so the plan creates and destroys nothing: exit status 0. With 1 it would.
		out, err := c.Script("job", "plan", job).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "All tasks successfully allocated") {
			t.Errorf("planning %s: %v\n%s", job, err, out)
		}
	}
	// No node here has a card: Nomad must say so.
	out, err := c.Script("job", "plan", "worker", "-var=gpus=2").CombinedOutput()
	if !strings.Contains(string(out), "missing devices") {
		t.Errorf("planning workers with two cards: %v\n%s", err, out)
	}
	for _, v := range [][]string{
		{"worker", "-var=driver=exec", "-var=gpus=2"},
		{"router", "-var=port=8090", "-var=mode=redirect"},
		{"edge", "-var=role="},
		{"api", "-var=count=3"},
		{"api", "-var=follow_nomad=false"},
	} {
		c.Run(t, append([]string{"job", "validate"}, v...)...)
	}
	if out, err := c.Script("job", "validate", "worker", "-var=kill_timeout=soon").CombinedOutput(); err == nil {
		t.Errorf("a kill_timeout of \"soon\" is valid:\n%s", out)
	}
}

// TestConfiguration has the agents' own programs check their configuration, the
// job files and the formatting of all, as `make lint` does where they are there.
func TestConfiguration(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(kit.RepoRoot(), "nomad", "jobs", "*.nomad.hcl"))
	if err != nil || len(files) != len(jobs) {
		t.Errorf("job files %v, %v; there should be %v", files, err, jobs)
	}
	cmd := exec.Command(filepath.Join(kit.RepoRoot(), "tools", "cluster", "validate.sh"))
	cmd.Env = append(os.Environ(), "DIONYSIA_NOMAD="+kit.Part(t, "DIONYSIA_NOMAD", "nomad"), "DIONYSIA_CONSUL="+kit.Part(t, "DIONYSIA_CONSUL", "consul"))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "valid") != 2 {
		t.Errorf("%s: %v\n%s", cmd.Path, err, out)
	}
}
