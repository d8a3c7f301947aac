package provision

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// A distribution is what a root is made of.
type distribution struct {
	suite   string
	mirror  string
	options []string // of debootstrap
	script  string   // debootstrap's, "" for the suite's own
}

// distributions returns the machine's own, and Ubuntu where a mirror of it is at
// hand: DIONYSIA_UBUNTU_MIRROR, or the folder ubuntu beside the folder debian that
// the machine's own apt uses, which many mirrors have.
func distributions(t *testing.T) []distribution {
	t.Helper()
	own := ownDistribution(t)
	if own.suite == "noble" {
		return []distribution{own}
	}
	mirror := os.Getenv("DIONYSIA_UBUNTU_MIRROR")
	if base, ok := strings.CutSuffix(strings.TrimSuffix(own.mirror, "/"), "/debian"); mirror == "" && ok {
		mirror = base + "/ubuntu"
	}
	mirror = strings.TrimSuffix(mirror, "/")
	if _, err := kit.FetchOK(mirror + "/dists/noble/Release"); err != nil {
		t.Logf("not run in Ubuntu: no mirror of it at %s: %v (DIONYSIA_UBUNTU_MIRROR names one)", mirror, err)
		return []distribution{own}
	}
	return []distribution{own, {
		suite:  "noble",
		mirror: mirror,
		// Every Ubuntu has gpgv; debootstrap's smallest set lacks it.
		options: []string{"--keyring=" + ubuntuKeys(t, mirror), "--components=main,universe", "--include=gpgv," + basePackages},
		script:  "/usr/share/debootstrap/scripts/gutsy", // as for every Ubuntu; Debian 12's debootstrap does not name this one
	}}
}

// ownDistribution takes the mirror that the machine's own apt uses.
func ownDistribution(t *testing.T) distribution {
	t.Helper()
	out := run(t, exec.Command("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"))
	for line := range strings.Lines(out) {
		switch origin, uri, _ := strings.Cut(strings.TrimSpace(line), " "); {
		case origin == "Debian" && !strings.Contains(uri, "security"):
			return distribution{suite: "bookworm", mirror: uri, options: []string{"--components=main", "--include=" + basePackages}}
		case origin == "Ubuntu" && !strings.Contains(uri, "security"):
			return distribution{suite: "noble", mirror: uri, options: []string{"--components=main,universe", "--include=" + basePackages}}
		}
	}
	t.Fatal("apt has no source of Debian or Ubuntu to take a mirror from (is there a list? apt-get update)")
	return distribution{}
}

// The keys that Ubuntu signs its releases with, in its own package. Among them
// is F6ECB3762474EDA9D21B7022871920D1991BC93C, of 2018, which signs noble.
const (
	ubuntuKeyring    = "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb"
	ubuntuKeyringSum = "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8"
)

// ubuntuKeys returns a file with them: Debian has no package of them.
func ubuntuKeys(t *testing.T, mirror string) string {
	t.Helper()
	deb, err := kit.FetchOK(mirror + "/" + ubuntuKeyring)
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(deb)); sum != ubuntuKeyringSum {
		t.Fatalf("%s from %s has the SHA-256 %s, not the pinned %s", ubuntuKeyring, mirror, sum, ubuntuKeyringSum)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "keyring.deb")
	if err := os.WriteFile(file, deb, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, exec.Command("dpkg-deb", "-x", file, dir))
	return filepath.Join(dir, "usr/share/keyrings/ubuntu-archive-keyring.gpg")
}

// tarball names the root's tarball by what it is made from.
func (d distribution) tarball(t *testing.T) string {
	t.Helper()
	sum := sha256.New()
	_, _ = fmt.Fprintln(sum, d.suite, basePackages, allRoles)
	for _, name := range []string{"lib.sh", "steps.sh"} {
		content, err := os.ReadFile(filepath.Join(kit.RepoRoot(), "tools", "provision", name))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = sum.Write(content)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "dionysia")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, fmt.Sprintf("provision-%s-%x.tar", d.suite, sum.Sum(nil)[:6]))
}
