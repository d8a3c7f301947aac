package provision

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// TestTerraformBareMetal applies terraform/bare-metal to a machine that is
// reached over SSH, finds nothing to do the second time, and destroys it. The
// machine is a root with an sshd of its own on loopback.
func TestTerraformBareMetal(t *testing.T) {
	terraform := kit.Part(t, "DIONYSIA_TERRAFORM", "terraform")
	r := newRoot(t, ownDistribution(t))
	work := t.TempDir()
	key, hostKey, port := r.serveSSH(t, work)
	fresh := r.listing(t)

	module := filepath.Join(work, "module")
	run(t, exec.Command("cp", "-r", filepath.Join(r.repo, "terraform", "bare-metal"), module))
	bundle := filepath.Join(work, "bundle.tar.gz")
	run(t, exec.Command(filepath.Join(r.repo, "tools", "provision", "bundle.sh"), bundle, r.bin))
	keys := filepath.Join(work, "keys")
	run(t, exec.Command(kit.Binary(t), "cluster", "init", keys, "--host", "one=192.0.2.10,server,redis,api,ingest,worker,router,edge"))
	variables := fmt.Sprintf(`
private_key_file = %q
bundle           = %q
keys             = %q
from             = "folder"
dns              = "none"
purge            = true
hosts = {
  one = {
    address  = "127.0.0.1"
    port     = %d
    host_key = %q
    bind     = "192.0.2.10"
    roles    = ["server", "redis", "api", "ingest", "worker", "router", "edge"]
  }
}
`, key, bundle, keys, port, hostKey)
	if err := os.WriteFile(filepath.Join(module, "terraform.tfvars"), []byte(variables), 0o600); err != nil {
		t.Fatal(err)
	}
	tf := func(args ...string) string {
		cmd := exec.Command(terraform, append([]string{"-chdir=" + module}, args...)...)
		cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1")
		return run(t, cmd)
	}

	tf("init", "-input=false", "-no-color")
	out := tf("apply", "-auto-approve", "-input=false", "-no-color")
	t.Log(out)
	if !strings.Contains(out, "3 added, 0 changed, 0 destroyed") {
		t.Errorf("apply did not add the machine, what runs there and its keys:\n%s", out)
	}
	for _, program := range []string{"consul", "nomad"} {
		want, err := os.ReadFile(filepath.Join(keys, "hosts", "one", program+".d", "host.hcl"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(r.dir, "etc", program+".d", "host.hcl"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s's host.hcl: %v\n%s", program, err, got)
		}
	}
	if _, err := os.Stat(filepath.Join(r.dir, "root", ".dionysia-keys")); !os.IsNotExist(err) {
		t.Errorf("the keys' way in is left: %v", err)
	}
	state, err := os.ReadFile(filepath.Join(module, "terraform.tfstate"))
	if err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(filepath.Join(keys, "consul.agent.one"))
	if err != nil || strings.Contains(string(state), strings.TrimSpace(string(secret))) {
		t.Errorf("Terraform's state has a secret (%v)", err)
	}
	r.programsRun(t)
	r.unitsParse(t, "consul", "nomad")
	// Exit status 2 would say that there is something to do.
	tf("plan", "-detailed-exitcode", "-input=false", "-no-color")

	if out := tf("destroy", "-auto-approve", "-input=false", "-no-color"); !strings.Contains(out, "3 destroyed") {
		t.Errorf("destroy did not destroy all:\n%s", out)
	}
	if d := difference(fresh, r.listing(t)); len(d) > 0 {
		t.Errorf("destroy left the machine changed:\n%s", strings.Join(d, "\n"))
	}
}

// serveSSH runs the root's sshd on a free port of loopback until the test ends,
// with keys that are made for it.
func (r *root) serveSSH(t *testing.T, work string) (key, hostKey string, port int) {
	t.Helper()
	key = filepath.Join(work, "user")
	for _, file := range []string{key, filepath.Join(work, "host")} {
		run(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file))
	}
	keys := filepath.Join(r.dir, "root", ".ssh")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, exec.Command("cp", key+".pub", filepath.Join(keys, "authorized_keys")))
	run(t, exec.Command("install", "-m", "600", filepath.Join(work, "host"), filepath.Join(r.dir, "etc/ssh/dionysia_test_key")))
	public, err := os.ReadFile(filepath.Join(work, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if port, err = kit.FreePort(); err != nil {
		t.Fatal(err)
	}
	cmd := r.command("sh", "-ec", fmt.Sprintf("mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e -f /dev/null -p %d "+
		"-o ListenAddress=127.0.0.1 -o HostKey=/etc/ssh/dionysia_test_key -o UsePAM=no -o PasswordAuthentication=no", port))
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // unshare takes all of its namespace along
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("sshd:\n%s", log.String())
		}
	})
	probe := func() error {
		out, err := exec.Command("ssh", "-F", "/dev/null", "-i", key, "-p", fmt.Sprint(port), "-o", "BatchMode=yes",
			"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "root@127.0.0.1", "true").CombinedOutput()
		if err != nil {
			return fmt.Errorf("ssh: %w: %s", err, out)
		}
		return nil
	}
	kit.Eventually(t, 30*time.Second, "the machine answers SSH", probe)
	return key, strings.TrimSpace(string(public)), port
}
