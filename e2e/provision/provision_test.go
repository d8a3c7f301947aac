package provision

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProvisionTwice runs the scripts on a fresh machine, and again; takes what
// they did back; and has systemd run the roles instead of Nomad.
func TestProvisionTwice(t *testing.T) {
	for _, d := range distributions(t) {
		t.Run(d.suite, d.provisionTwice)
	}
}

func (d distribution) provisionTwice(t *testing.T) {
	t.Parallel()
	r := newRoot(t, d)
	fresh := r.listing(t)
	t.Run("NVIDIA's driver", r.driverWhereThereIsACard)
	r.mustNotPass(t, "--check")
	if d := difference(fresh, r.listing(t)); len(d) > 0 {
		t.Errorf("--check changed the machine:\n%s", strings.Join(d, "\n"))
	}

	t.Log(r.provision(t, ""))
	first := r.listing(t)
	if out := r.provision(t, ""); !strings.Contains(out, "\n0 changed, ") {
		t.Errorf("the second run changed something by its own account:\n%s", out)
	}
	if d := difference(first, r.listing(t)); len(d) > 0 {
		t.Errorf("the second run changed the machine:\n%s", strings.Join(d, "\n"))
	}
	r.provision(t, "--check")

	r.programsRun(t)
	r.unitsParse(t, "consul", "nomad")
	r.agentsReadTheirFiles(t)
	r.keysAreBrought(t)

	out := r.must(t, "/mnt/repo/tools/provision/uninstall.sh", "--purge")
	if d := difference(fresh, r.listing(t)); len(d) > 0 {
		t.Errorf("uninstall.sh --purge left the machine changed:\n%s\nit said:\n%s", strings.Join(d, "\n"), out)
	}

	r.provision(t, "--without-nomad")
	r.unitsParse(t, "consul", "dionysia-redis", "dionysia-api", "mediamtx", "dionysia-ingest", "dionysia-worker", "dionysia-router")
	if out := r.provision(t, "--without-nomad"); !strings.Contains(out, "\n0 changed, ") {
		t.Errorf("the second run without Nomad changed something:\n%s", out)
	}
}

// mustNotPass runs provision.sh, which must end with 1.
func (r *root) mustNotPass(t *testing.T, options string) {
	t.Helper()
	out, err := r.command("sh", "-c", "/mnt/repo/tools/provision/provision.sh --binaries /mnt/bin "+allRoles+" "+options).CombinedOutput()
	if err == nil {
		t.Errorf("provision.sh %s on a fresh machine found nothing to do:\n%s", options, out)
	}
	if !strings.Contains(string(out), " would change, ") {
		t.Errorf("provision.sh %s did not reach its end: %v\n%s", options, err, out)
	}
}

func (r *root) programsRun(t *testing.T) {
	t.Helper()
	for want, command := range map[string]string{
		"Consul v":         "consul version",
		"Nomad v":          "nomad version",
		"Usage: dionysia":  "dionysia --help",
		"v1.":              "mediamtx --version",
		"GPAC":             "gpac -h 2>&1",
		"Redis server v=7": "redis-server --version",
		"nginx/1":          "nginx -v 2>&1",
	} {
		if out := r.must(t, "sh", "-c", command); !strings.Contains(out, want) {
			t.Errorf("%s did not print %q but:\n%s", command, want, out)
		}
	}
}

// unitsParse asks systemd whether it understands the units, and that they are
// enabled for the next boot.
func (r *root) unitsParse(t *testing.T, units ...string) {
	t.Helper()
	paths := []string{"systemd-analyze", "verify", "--man=no"}
	for _, unit := range units {
		path := "/etc/systemd/system/" + unit + ".service"
		paths = append(paths, path)
		link, err := os.Readlink(filepath.Join(r.dir, "etc/systemd/system/multi-user.target.wants", unit+".service"))
		if err != nil || link != path {
			t.Errorf("%s is not enabled: it is a link to %q: %v", unit, link, err)
		}
	}
	if out := r.must(t, paths...); strings.Contains(out, "/etc/systemd/system/") {
		t.Errorf("systemd-analyze verify complains:\n%s", out)
	}
}

// agentsReadTheirFiles has Consul and Nomad check the configuration that was
// put there. Without the operator's host.hcl it is not all of it.
func (r *root) agentsReadTheirFiles(t *testing.T) {
	t.Helper()
	for _, want := range []struct{ file, text string }{
		{"etc/consul.d/site.hcl", `retry_join = ["192.0.2.10", "192.0.2.11", "192.0.2.12"]`},
		{"etc/consul.d/site.hcl", "bootstrap_expect = 3"},
		{"etc/nomad.d/site.hcl", `dionysia = "redis,api,ingest,worker,router,edge"`},
	} {
		content, err := os.ReadFile(filepath.Join(r.dir, want.file))
		if err != nil || !strings.Contains(string(content), want.text) {
			t.Errorf("%s has no %s: %v\n%s", want.file, want.text, err, content)
		}
	}
	for _, agent := range []string{
		"consul validate /etc/consul.d/site.hcl",
		"nomad config validate /etc/nomad.d/server.hcl /etc/nomad.d/site.hcl",
	} {
		out, _ := r.command("sh", "-c", agent+" 2>&1").CombinedOutput()
		for _, bad := range []string{"parse", "invalid config key", "unexpected keys", "unknown"} {
			if strings.Contains(strings.ToLower(string(out)), bad) {
				t.Errorf("%s:\n%s", agent, out)
			}
		}
	}
}

// keysAreBrought gives the machine what `dionysia cluster init` made for it: its
// roles are known by that, the agents may read it and nobody else, and their
// configuration is complete.
func (r *root) keysAreBrought(t *testing.T) {
	t.Helper()
	// The address is one that the root has: Nomad looks for its interface.
	r.must(t, "dionysia", "cluster", "init", "/root/keys", "--host", "one=127.0.0.1,server,redis,api,ingest,worker,router,edge")
	provision := "/mnt/repo/tools/provision/provision.sh --binaries /mnt/bin --keys /root/keys/hosts/one"
	if out := r.must(t, "sh", "-ec", provision); !strings.Contains(out, "\n8 changed, ") {
		t.Errorf("bringing the keys did not change eight files:\n%s", out)
	}
	if out := r.must(t, "sh", "-ec", provision); !strings.Contains(out, "\n0 changed, ") {
		t.Errorf("bringing the keys again changed something:\n%s", out)
	}
	want := "640 root:consul /etc/consul.d/agent-key.pem\n640 root:consul /etc/consul.d/host.hcl\n600 root:root /etc/nomad.d/agent-key.pem\n600 root:root /etc/nomad.d/host.hcl\n"
	if got := r.must(t, "sh", "-c", "stat -c '%a %U:%G %n' /etc/consul.d/agent-key.pem /etc/consul.d/host.hcl /etc/nomad.d/agent-key.pem /etc/nomad.d/host.hcl"); got != want {
		t.Errorf("the keys are\n%swant\n%s", got, want)
	}
	r.must(t, "setpriv", "--reuid=consul", "--regid=consul", "--clear-groups", "consul", "validate", "/etc/consul.d")
	r.must(t, "nomad", "config", "validate", "/etc/nomad.d")
	r.must(t, "rm", "-r", "/root/keys")
}

// driverWhereThereIsACard shows that the driver is asked for where there is a
// card, and only there. The card is a folder as the kernel makes one.
func (r *root) driverWhereThereIsACard(t *testing.T) {
	for _, device := range []struct {
		name, vendor, class string
		driver              bool
	}{
		{"an NVIDIA 3D controller", "0x10de", "0x030200", true},
		{"an NVIDIA display", "0x10de", "0x030000", true},
		{"the sound of an NVIDIA card", "0x10de", "0x040300", false},
		{"another maker's display", "0x8086", "0x030000", false},
	} {
		out, err := r.command("sh", "-c", `d=/tmp/sys/bus/pci/devices/0000:01:00.0; mkdir -p $d
			echo `+device.vendor+` >$d/vendor; echo `+device.class+` >$d/class
			DIONYSIA_SYS=/tmp/sys /mnt/repo/tools/provision/provision.sh --check nvidia`).CombinedOutput()
		if got := strings.Contains(string(out), "libnvidia-encode"); got != device.driver {
			t.Errorf("%s: driver %v, want %v: %v\n%s", device.name, got, device.driver, err, out)
		}
	}
}
