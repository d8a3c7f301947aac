package cluster_test

import (
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

// TestConfiguration holds the agents' configuration and the job files against
// the agents' own checks and formatting.
func TestConfiguration(t *testing.T) {
	nomad, consul := kit.Part(t, "DIONYSIA_NOMAD", "nomad"), kit.Part(t, "DIONYSIA_CONSUL", "consul")
	root := kit.RepoRoot()
	files, err := filepath.Glob(filepath.Join(root, "nomad", "jobs", "*.nomad.hcl"))
	if err != nil || len(files) != len(jobs) {
		t.Fatalf("job files %v, %v; there should be %v", files, err, jobs)
	}
	check := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Errorf("%s %v: %v\n%s", filepath.Base(name), args, err, out)
		}
	}
	for _, f := range files {
		check(nomad, "job", "run", "-output", f) // parses it, without a server
	}
	for _, dir := range []string{"nomad/jobs", "nomad/agent", "nomad/policies", "consul", "consul/policies"} {
		hcl, _ := filepath.Glob(filepath.Join(root, dir, "*.hcl"))
		if len(hcl) == 0 {
			t.Errorf("no files in %s", dir)
		}
		for _, f := range hcl {
			check(nomad, "fmt", "-check", f)
		}
	}
	data := t.TempDir()
	rest := filepath.Join(data, "host.json")
	write(t, rest, `{"data_dir": "`+data+`", "datacenter": "dc1", "encrypt": "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=",
		"tls": {"internal_rpc": {"ca_file": "`+rest+`", "cert_file": "`+rest+`", "key_file": "`+rest+`"}}}`)
	for _, kind := range []string{"server", "client"} {
		check(consul, "validate", filepath.Join(root, "consul", kind+".hcl"), rest)
	}
}
