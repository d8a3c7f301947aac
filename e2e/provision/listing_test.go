package provision

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// passing are what comes and goes without being part of a machine's state; the
// files in etc are what useradd keeps of the ones before, and its lock.
var passing = []string{
	"proc", "sys", "dev", "run", "tmp", "mnt", "var/log", "var/cache", "var/lib/apt", "root/.cache", "root/.gpac",
	"etc/passwd-", "etc/shadow-", "etc/group-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock",
}

// listing describes each file of the root by mode, owner, time and, where
// provision.sh writes, by content.
func (r *root) listing(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(r.dir, path)
		if err != nil {
			return err
		}
		if slices.Contains(passing, name) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files[name], err = describe(path, name, info)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func describe(path, name string, info fs.FileInfo) (string, error) {
	owner := info.Sys().(*syscall.Stat_t)
	said := fmt.Sprintf("%v %d:%d", info.Mode(), owner.Uid, owner.Gid)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return said + " to " + target, err
	case !info.Mode().IsRegular():
		return said, nil
	case ours(name):
		content, err := os.ReadFile(path)
		return fmt.Sprintf("%s %x", said, sha256.Sum256(content)), err
	}
	return fmt.Sprintf("%s %d bytes of %v", said, info.Size(), info.ModTime()), nil
}

// ours tells whether a file's content is compared, and not its time.
func ours(name string) bool {
	for _, dir := range []string{"etc/", "usr/local/", "opt/", "root/", "var/lib/dionysia", "var/lib/consul", "var/lib/nomad"} {
		if strings.HasPrefix(name, dir) {
			return true
		}
	}
	return false
}

// difference lists what is not the same in two listings.
func difference(before, after map[string]string) []string {
	var all []string
	for name, was := range before {
		if is, ok := after[name]; !ok {
			all = append(all, "- "+name)
		} else if is != was {
			all = append(all, fmt.Sprintf("~ %s: %s, was %s", name, is, was))
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			all = append(all, "+ "+name)
		}
	}
	slices.Sort(all)
	return all
}
