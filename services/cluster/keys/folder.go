package keys

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"
)

// A folder is written by whole files: each is complete under another name
// first, so that a run that is cut off leaves nothing half written.
type folder struct {
	dir     string
	made    []string
	changed []string
	kept    int
}

// kind is a sort of secret: how one is made, and what one looks like.
type kind struct {
	what string
	make func() ([]byte, error)
	like *regexp.Regexp
}

var (
	// A token's secret id.
	token = kind{"a UUID", func() ([]byte, error) {
		id, err := uuid.NewRandom()
		return []byte(id.String()), err
	}, regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)}
	// A key that encrypts gossip, 32 bytes for AES-256.
	gossip = kind{"32 bytes in base64", func() ([]byte, error) {
		b, err := random(32)
		return []byte(base64.StdEncoding.EncodeToString(b)), err
	}, regexp.MustCompile(`^[A-Za-z0-9+/]{43}=$`)}
	// A password of Dionysia's own.
	password = kind{"64 hexadecimal digits", func() ([]byte, error) {
		b, err := random(32)
		return []byte(hex.EncodeToString(b)), err
	}, regexp.MustCompile(`^[0-9A-Za-z+/=_-]{32,}$`)}
)

func random(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := rand.Read(b)
	return b, err
}

// secret returns the secret in that file, which is made if it is not there.
func (f *folder) secret(name string, k kind) (string, error) {
	b, err := f.once(name, func() ([]byte, error) {
		b, err := k.make()
		return append(b, '\n'), err
	})
	if err != nil {
		return "", err
	}
	s := bytes.TrimSpace(b)
	if !k.like.Match(s) {
		return "", fmt.Errorf("%s is not %s; where nothing uses it yet, remove it and run this again", filepath.Join(f.dir, name), k.what)
	}
	return string(s), nil
}

// once returns the file's content. What is there is never written over, not
// even by a second run at the same time: the new file's name is a link, which
// only one can make.
func (f *folder) once(name string, content func() ([]byte, error)) ([]byte, error) {
	path := filepath.Join(f.dir, name)
	b, err := os.ReadFile(path)
	if err == nil {
		f.kept++
		return b, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if b, err = content(); err != nil {
		return nil, fmt.Errorf("making %s: %w", path, err)
	}
	temp, err := f.temp(path, b)
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(temp) }()
	if err := os.Link(temp, path); errors.Is(err, fs.ErrExist) {
		f.kept++
		return os.ReadFile(path)
	} else if err != nil {
		return nil, err
	}
	f.made = append(f.made, name)
	return b, syncDir(filepath.Dir(path))
}

// put writes what is made from other files: it takes the place of what is there
// when that is something else.
func (f *folder) put(name string, content []byte) error {
	path := filepath.Join(f.dir, name)
	was, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(was, content):
		f.kept++
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	temp, err2 := f.temp(path, content)
	if err2 != nil {
		return err2
	}
	if err2 := os.Rename(temp, path); err2 != nil {
		_ = os.Remove(temp)
		return err2
	}
	if err == nil {
		f.changed = append(f.changed, name)
	} else {
		f.made = append(f.made, name)
	}
	return syncDir(filepath.Dir(path))
}

// temp writes a file for its owner alone beside path. The names are Go's own
// temporary ones, which start with a dot: agents don't read them.
func (f *folder) temp(path string, content []byte) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	t, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = t.Write(content)
	err = errors.Join(err, t.Sync(), t.Close())
	if err != nil {
		_ = os.Remove(t.Name())
		return "", fmt.Errorf("writing %s: %w", path, err)
	}
	return t.Name(), nil
}

// syncDir makes names last over a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// sweep removes what runs that were cut off left; what is new may be another
// run's that is still at it.
func (f *folder) sweep(now time.Time) error {
	return filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ok, _ := filepath.Match(".new-*", d.Name()); !ok || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err != nil || now.Sub(info.ModTime()) < time.Minute {
			return err
		}
		return os.Remove(path)
	})
}

// private makes the folder if it is not there; one that others can read is
// refused.
func private(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("others may read %s (mode %04o): chmod 700 it, or name another folder", dir, info.Mode().Perm())
	}
	return nil
}

// gone are the folders of hosts that the cluster has not.
func (f *folder) gone(hosts []Host) []string {
	list, _ := os.ReadDir(filepath.Join(f.dir, "hosts"))
	var names []string
	for _, e := range list {
		if !slices.ContainsFunc(hosts, func(h Host) bool { return h.Name == e.Name() }) {
			names = append(names, e.Name())
		}
	}
	return names
}
