package cluster_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// nobody is who plays the ordinary user when the tests run as root.
const nobody = 65534

// ordinary is a user without any privilege, with a home, the scripts of this
// checkout and the parts, all within its reach.
type ordinary struct {
	root     string // of everything below
	checkout string
	home     string
	env      []string
}

// parts are the DIONYSIA_ variables of the programs that a cluster runs.
var parts = map[string]string{"CONSUL": "consul", "NOMAD": "nomad", "MEDIAMTX": "mediamtx", "GPAC": "gpac",
	"REDIS_SERVER": "redis-server", "NGINX": "nginx", "FFMPEG": "ffmpeg", "FFPROBE": "ffprobe"}

func newOrdinary(t *testing.T) *ordinary {
	t.Helper()
	root, err := os.MkdirTemp("", "dionysia-dev-") // short: there will be sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	u := &ordinary{root: root, checkout: filepath.Join(root, "checkout"), home: filepath.Join(root, "home")}
	for _, dir := range []string{"tools", "nomad", "consul"} {
		if err := os.CopyFS(filepath.Join(u.checkout, dir), os.DirFS(filepath.Join(kit.RepoRoot(), dir))); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, filepath.Join(kit.RepoRoot(), "go.mod"), filepath.Join(u.checkout, "go.mod"))
	for _, dir := range []string{root, u.home, filepath.Join(u.home, "tmp")} {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = os.Chmod(dir, 0o755) // whatever the umask is
		}
		if err == nil && dir != root && os.Getuid() == 0 {
			err = os.Chown(dir, nobody, nobody)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	u.env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + u.home, "TMPDIR=" + filepath.Join(u.home, "tmp"),
		"DIONYSIA_BIN=" + u.reach(t, kit.Binary(t)), "DIONYSIA_WEB_DIR=" + u.reach(t, kit.WebDir(t))}
	for name, program := range parts {
		u.env = append(u.env, "DIONYSIA_"+name+"="+u.reach(t, kit.Part(t, "DIONYSIA_"+name, program)))
	}
	return u
}

// as makes a command the user's, with only the user's environment.
func (u *ordinary) as(cmd *exec.Cmd) {
	cmd.Env = append([]string{}, u.env...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	if cmd.Dir == "" {
		cmd.Dir = u.checkout
	}
}

func (u *ordinary) command(script string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(u.checkout, "tools", script), args...)
	u.as(cmd)
	return cmd
}

// reach returns the path of a file or folder that the user can read: it may lie
// in root's cache, and is copied then.
func (u *ordinary) reach(t *testing.T, path string) string {
	t.Helper()
	test := exec.Command("test", "-r", path, "-a", "-x", path)
	u.as(test)
	if test.Run() == nil {
		return path
	}
	at := filepath.Join(u.root, "parts", filepath.Base(path))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !info.IsDir() {
		copyFile(t, path, at)
	} else if err := os.CopyFS(at, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	return at
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Link(from, to) == nil {
		return
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOrdinaryUserIsTold shows what `make cluster` says to a user who can't
// install what is missing, and of servers on PATH that are too old.
func TestOrdinaryUserIsTold(t *testing.T) {
	u := newOrdinary(t)
	bin := filepath.Join(u.root, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	fake := func(name, version string) string {
		path := filepath.Join(bin, name)
		write(t, path, "#!/bin/sh\necho '"+version+"'\n")
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pinned := filepath.Join(u.home, ".cache/dionysia/bin")
	u.unset("DIONYSIA_CONSUL", "DIONYSIA_NOMAD")
	u.env = append(u.env, "PATH="+bin+":/usr/local/bin:/usr/bin:/bin")

	for _, v := range []struct {
		name, version string
		used          bool
	}{
		{"consul", "Consul v1.19.9", false}, {"consul", "Consul v1.20.0", true}, {"consul", "Consul v1.22.7+ent", true},
		{"consul", "Consul v2.0.0", false}, {"consul", "no version", false},
		{"nomad", "Nomad v1.9.12", false}, {"nomad", "Nomad v1.10.5", true}, {"nomad", "Nomad v1.11.0", true}, {"nomad", "Nomad v2.0.0", false},
	} {
		path := fake(v.name, v.version)
		out, err := u.command("deps.sh", "env").CombinedOutput()
		used := strings.Contains(string(out), "DIONYSIA_"+strings.ToUpper(v.name)+"="+path+"\n")
		if err != nil || used != v.used {
			t.Errorf("%s on PATH: used %v, should be %v; %v\n%s", v.version, used, v.used, err, out)
		}
	}

	// What is pinned is there, so nothing is built; both on PATH are too old.
	fake("consul", "Consul v1.9.3")
	fake("nomad", "Nomad v1.2.1")
	for _, tool := range []string{"consul", "nomad"} {
		copyFile(t, kit.Part(t, "DIONYSIA_"+strings.ToUpper(tool), tool), filepath.Join(pinned, tool+"-"+pin(t, tool), tool))
	}
	u.own(t, filepath.Join(u.home, ".cache"))
	out, err := u.command("deps.sh", "cluster").CombinedOutput()
	if err != nil {
		t.Errorf("deps.sh cluster: %v", err)
	}
	for _, want := range []string{"packages: all there", bin + "/consul is Consul v1.9.3", bin + "/nomad is Nomad v1.2.1", pinned + "/nomad-"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}

	u.unset("DIONYSIA_REDIS_SERVER")
	u.env = append(u.env, "PATH="+u.without(t, "redis-server"))
	out, err = u.command("deps.sh", "cluster").CombinedOutput()
	if want := u.checkout + "/tools/deps.sh packages redis-server\n"; err == nil || !strings.Contains(string(out), "    sudo "+want) {
		t.Errorf("without Redis it ends with %v and does not say %q:\n%s", err, want, out)
	}
}

// without is a PATH that has everything but one program.
func (u *ordinary) without(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(u.root, "without-"+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob("/usr/bin/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if base := filepath.Base(path); base != name && base != "sudo" {
			if err := os.Symlink(path, filepath.Join(dir, base)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func (u *ordinary) unset(names ...string) {
	kept := u.env[:0]
	for _, kv := range u.env {
		if name, _, _ := strings.Cut(kv, "="); !strings.Contains(" "+strings.Join(names, " ")+" ", " "+name+" ") {
			kept = append(kept, kv)
		}
	}
	u.env = kept
}

// own gives a folder and what is in it to the user; linked files stay whose they are.
func (u *ordinary) own(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && os.Getuid() == 0 {
			return os.Chown(path, nobody, nobody)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pin is the version in a tool's go.mod.
func pin(t *testing.T, tool string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(kit.RepoRoot(), "tools", tool, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == "github.com/hashicorp/"+tool {
			return strings.TrimPrefix(f[1], "v")
		}
	}
	t.Fatal(fmt.Errorf("tools/%s/go.mod pins no %s", tool, tool))
	return ""
}
