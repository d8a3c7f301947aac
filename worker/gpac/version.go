package gpac

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// Version is GPAC's own. Versions since 2.4 count by year and month (26.08).
type Version struct {
	Major, Minor int
	// Text is what gpac prints, e.g. 1.0.1-rev1.0.1+dfsg1-4+deb11u3.
	Text string
}

// String returns what gpac printed.
func (v Version) String() string { return v.Text }

// legacy reports whether v is a 1.x.
func (v Version) legacy() bool { return v.Major < 2 }

// ErrVersion is returned for output that names no version, or one before 1.0.
var ErrVersion = errors.New("not a usable GPAC")

var versionLine = regexp.MustCompile(`GPAC[^\n]* version ((\d+)\.(\d+)\S*)`)

// ParseVersion reads the version from the output of `gpac -version`. It returns
// an error that wraps ErrVersion.
func ParseVersion(out []byte) (Version, error) {
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return Version{}, fmt.Errorf("%w: no version in what it prints: %.120q", ErrVersion, bytes.TrimSpace(out))
	}
	major, err1 := strconv.Atoi(string(m[2]))
	minor, err2 := strconv.Atoi(string(m[3]))
	v := Version{Major: major, Minor: minor, Text: string(m[1])}
	if err1 != nil || err2 != nil || major < 1 {
		return Version{}, fmt.Errorf("%w: version %s", ErrVersion, m[1])
	}
	return v, nil
}

// Detect asks the program at path for its version. An error wraps ErrVersion, or
// is that of starting the program.
func Detect(ctx context.Context, path string) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-p=0", "-version")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	v, perr := ParseVersion(out) // its exit code says nothing
	if perr == nil {
		return v, nil
	}
	if err != nil {
		return Version{}, fmt.Errorf("running %s: %w", path, err)
	}
	return Version{}, fmt.Errorf("running %s: %w", path, perr)
}
