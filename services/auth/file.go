package auth

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Limits of a secret file.
const (
	minOwnSecret   = 16   // characters, of one that LoadOrCreateSecretFile takes
	maxSecretBytes = 4096 // of any; a longer one is refused, not cut
)

// LoadOrCreateSecretFile returns the secret in a file, without the white space
// around it. When there is no such file it makes one, with mode 0600, in one
// step and synced to the disk, so that two processes that start at once agree.
// A file that its group or others can read or write is refused, as is one that
// holds less than 16 characters.
func LoadOrCreateSecretFile(path string) (Secret, error) {
	s, err := LoadSecretFile(path, minOwnSecret)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if err := createSecretFile(path, NewToken()); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating the secret file: %w", err)
	}
	return LoadSecretFile(path, minOwnSecret)
}

// LoadSecretFile is LoadOrCreateSecretFile for a file that must be there, and
// hold at least atLeast characters, 1 or more; its error wraps fs.ErrNotExist
// when it isn't. It may be a pipe, such as a shell's <(…).
func LoadSecretFile(path string, atLeast int) (Secret, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the secret file: %w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the secret file: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("secret file %s: mode %04o lets others at it; run: chmod 600 %s", path, mode, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading the secret file: %w", err)
	}
	if len(b) > maxSecretBytes {
		return nil, fmt.Errorf("secret file %s: holds more than %d bytes", path, maxSecretBytes)
	}
	s := strings.TrimSpace(string(b))
	if len(s) < max(atLeast, 1) {
		return nil, fmt.Errorf("secret file %s: holds %d characters, at least %d are needed", path, len(s), max(atLeast, 1))
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
