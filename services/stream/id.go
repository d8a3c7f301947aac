package stream

import (
	"fmt"
	"regexp"
)

var (
	// idGrammar is one DNS label that may also hold underscores: safe in a path,
	// a URL, a Redis key, a mediamtx path and a GPAC argument without quoting.
	idGrammar  = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?$`)
	keyGrammar = regexp.MustCompile(`^[A-Za-z0-9_-]{16,128}$`)
)

// CheckID checks a stream's id: 1 to 63 of a-z, 0-9, - and _, beginning and
// ending with a letter or digit. Its error wraps ErrInvalid.
func CheckID(id string) error {
	if !idGrammar.MatchString(id) {
		return fmt.Errorf("id %s: must be 1 to 63 of a-z, 0-9, - and _, beginning and ending with a letter or digit: %w", clip(id), ErrInvalid)
	}
	return nil
}

// CheckName checks the name of a profile: the grammar of CheckID.
func CheckName(name string) error {
	if !idGrammar.MatchString(name) {
		return fmt.Errorf("name %s: must be 1 to 63 of a-z, 0-9, - and _, beginning and ending with a letter or digit: %w", clip(name), ErrInvalid)
	}
	return nil
}

// CheckRenditionName checks the name of a rendition: CheckName, less the words
// that URLs use for something else.
func CheckRenditionName(name string) error {
	switch name {
	case "init", "seg", "index", "master", "manifest":
		return fmt.Errorf("name %q: is reserved: %w", name, ErrInvalid)
	}
	return CheckName(name)
}

// CheckKeyGrammar checks the form of a stream key, 16 to 128 of A-Z, a-z, 0-9,
// - and _, before anything is done with it. Its error does not contain the key.
func CheckKeyGrammar(key string) error {
	if !keyGrammar.MatchString(key) {
		return fmt.Errorf("stream key: must be 16 to 128 of A-Z, a-z, 0-9, - and _: %w", ErrInvalid)
	}
	return nil
}

// clip quotes what a client sent and keeps error messages short.
func clip(s string) string {
	if r := []rune(s); len(r) > 80 {
		return fmt.Sprintf("%q…", string(r[:80]))
	}
	return fmt.Sprintf("%q", s)
}
