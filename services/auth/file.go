package auth

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// minSecretLength is the least that a secret file may hold, in characters.
const minSecretLength = 16

// LoadOrCreateSecretFile returns the secret in a file, without the white space
// around it. When there is no such file it makes one, with mode 0600, in one
// step and synced to the disk, so that two processes that start at once agree.
// A file that its group or others can read or write is refused, as is one that
// holds less than 16 characters.
func LoadOrCreateSecretFile(path string) (Secret, error) {
	s, err := LoadSecretFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := createSecretFile(path, NewToken()); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating the secret file: %w", err)
	}
	return LoadSecretFile(path)
}

// LoadSecretFile is LoadOrCreateSecretFile for a file that must be there; its
// error wraps fs.ErrNotExist when it isn't.
func LoadSecretFile(path string) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the secret file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the secret file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("secret file %s: is not a plain file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("secret file %s: mode %04o lets others at it; run: chmod 600 %s", path, mode, path)
	}
	b := make([]byte, 4096)
	n, err := f.Read(b)
	if err != nil && info.Size() > 0 {
		return nil, fmt.Errorf("reading the secret file: %w", err)
	}
	s := strings.TrimSpace(string(b[:n]))
	if len(s) < minSecretLength {
		return nil, fmt.Errorf("secret file %s: holds %d characters, at least %d are needed", path, len(s), minSecretLength)
	}
	return Secret(s), nil
}

// createSecretFile links a finished file to path: nobody ever reads half of it,
// and it never replaces one that is there (fs.ErrExist).
func createSecretFile(path, secret string) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(secret + "\n")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return d.Sync()
}
