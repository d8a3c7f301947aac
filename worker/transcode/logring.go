package transcode

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/dionysia-dev/dionysia/worker/gpac"
)

const (
	ringLines   = 20
	givenLines  = 20
	maxLineLen  = 500
	maxLogBytes = 1 << 20
)

// logRing keeps GPAC's last lines for an operator, and all of them, up to
// maxLogBytes, in a file. Tokens are masked in both.
type logRing struct {
	mu    sync.Mutex
	lines []string
	given []string // the first with which encoders gave up
	part  []byte
	file  *os.File
	size  int
}

var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// newLogRing writes to path; without the file it keeps only the lines.
func newLogRing(path string) *logRing {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		f = nil
	}
	return &logRing{file: f}
}

// Write implements io.Writer. It never fails, so that GPAC is not blocked.
func (r *logRing) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.part = append(r.part, b...)
	for {
		i := bytes.IndexAny(r.part, "\r\n")
		if i < 0 && len(r.part) > 8*maxLineLen {
			i = len(r.part) - 1
		}
		if i < 0 {
			return len(b), nil
		}
		r.line(string(r.part[:i]))
		r.part = append(r.part[:0], r.part[i+1:]...)
	}
}

func (r *logRing) line(s string) {
	s = gpac.Mask(strings.ToValidUTF8(strings.TrimSpace(colours.ReplaceAllString(s, "")), "?"))
	if s == "" || strings.Contains(s, "flush session before exit") {
		return
	}
	if len(s) > maxLineLen {
		s = s[:maxLineLen]
	}
	if r.file != nil && r.size < maxLogBytes {
		n, _ := r.file.WriteString(s + "\n")
		r.size += n
	}
	if len(r.given) < givenLines && givesUp(s) {
		r.given = append(r.given, s)
	}
	r.lines = append(r.lines, s)
	if len(r.lines) > ringLines {
		r.lines = r.lines[1:]
	}
}

// tail returns the last n lines, joined.
func (r *logRing) tail(n int) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.lines[max(0, len(r.lines)-n):], " | ")
}

// givenUp returns the first lines with which encoders gave up.
func (r *logRing) givenUp() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.given)
}

func (r *logRing) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file != nil {
		_ = r.file.Close()
		r.file = nil
	}
}
