package provision

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// allRoles are what provision.sh is told to make of the machine.
const allRoles = "--role server --role redis --role api --role ingest --role worker --role router --role edge"

// basePackages are in the root beside debootstrap's smallest set: what every
// machine has that is reached over SSH.
const basePackages = "ca-certificates,systemd,openssh-server,openssh-client"

// A root is a Debian or Ubuntu in a folder.
type root struct {
	dir  string
	bin  string // the programs, /mnt/bin in the root
	repo string // this repository, /mnt/repo in the root
}

// newRoot unpacks a root in which the distribution's packages are installed
// and nothing else of Dionysia.
//
// It is made the first time by provision.sh itself, and kept as a tarball named by
// what it is made from.
func newRoot(t *testing.T, d distribution) *root {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can make a chroot: run the tests as root, or leave ./e2e/provision out as `make test` does")
	}
	r := &root{dir: filepath.Join(t.TempDir(), "root"), bin: binaries(t), repo: kit.RepoRoot()}
	tarball := d.tarball(t)
	if _, err := os.Stat(tarball); err != nil {
		r.build(t, d, tarball)
	} else {
		if err := os.MkdirAll(r.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, exec.Command("tar", "-C", r.dir, "-xf", tarball))
	}
	// What provision.sh noted of the packages: they shall pass for the machine's own.
	if err := os.RemoveAll(filepath.Join(r.dir, "var/lib/dionysia-provision")); err != nil {
		t.Fatal(err)
	}
	return r
}

// build makes the root and the tarball.
func (r *root) build(t *testing.T, d distribution, tarball string) {
	t.Helper()
	start := time.Now()
	// dpkg need not wait for the disk after each file: a root that is lost is made again.
	unsafe := filepath.Join(r.dir, "etc/dpkg/dpkg.cfg.d/unsafe-io")
	if err := errors.Join(os.MkdirAll(filepath.Dir(unsafe), 0o755), os.WriteFile(unsafe, []byte("force-unsafe-io\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--mount", "--propagation", "private", "debootstrap", "--variant=minbase"}, d.options...)
	args = append(args, d.suite, r.dir, d.mirror)
	if d.script != "" {
		args = append(args, d.script)
	}
	run(t, exec.Command("unshare", args...))
	t.Logf("debootstrap took %v", time.Since(start).Round(time.Second))
	for _, file := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(r.dir+file, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	start = time.Now()
	t.Log(r.must(t, "sh", "-ec", "apt-get -q -y update >/dev/null; /mnt/repo/tools/provision/provision.sh "+allRoles+" packages; apt-get clean"))
	t.Logf("the packages took %v", time.Since(start).Round(time.Second))

	old, _ := filepath.Glob(filepath.Join(filepath.Dir(tarball), "provision-"+d.suite+"-*.tar"))
	for _, file := range old {
		_ = os.Remove(file)
	}
	run(t, exec.Command("tar", "-C", r.dir, "-cf", tarball+".new", "."))
	if err := os.Rename(tarball+".new", tarball); err != nil {
		t.Fatal(err)
	}
}

// enter is a shell's prologue: $1 is the root, the rest is run in it. What it
// mounts is its namespace's own.
const enter = `set -e
root=$1 repo=$2 bin=$3; shift 3
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs run "$root/run"
mkdir -p "$root/mnt/repo" "$root/mnt/bin"
mount --bind "$repo" "$root/mnt/repo"
mount -o remount,bind,ro "$root/mnt/repo"
mount --bind "$bin" "$root/mnt/bin"
exec chroot "$root" env -i HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
  PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"`

// command returns args as a command in the root. Its processes and mounts
// end with it, also when the test is killed.
func (r *root) command(args ...string) *exec.Cmd {
	all := append([]string{"unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private",
		"bash", "-c", enter, "enter", r.dir, r.repo, r.bin}, args...)
	return exec.Command(all[0], all[1:]...)
}

// must runs args in the root and returns what they print.
func (r *root) must(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, r.command(args...))
}

// provision runs provision.sh with all roles.
func (r *root) provision(t *testing.T, options string) string {
	t.Helper()
	return r.must(t, "sh", "-ec", "/mnt/repo/tools/provision/provision.sh --binaries /mnt/bin "+
		"--bind 192.0.2.10 --join 192.0.2.10,192.0.2.11,192.0.2.12 --servers 3 "+allRoles+" "+options)
}

func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// binaries returns a folder with the programs that provision.sh installs.
func binaries(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, path := range map[string]string{
		"dionysia": kit.Binary(t),
		"consul":   kit.Part(t, "DIONYSIA_CONSUL", "consul"),
		"nomad":    kit.Part(t, "DIONYSIA_NOMAD", "nomad"),
		"mediamtx": kit.Part(t, "DIONYSIA_MEDIAMTX", "mediamtx"),
	} {
		// Linked where they are on one disk: together they have several hundred megabytes.
		if err := os.Link(path, filepath.Join(dir, name)); err != nil {
			run(t, exec.Command("cp", path, filepath.Join(dir, name)))
		}
	}
	return dir
}
