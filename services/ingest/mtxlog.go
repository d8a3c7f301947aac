package ingest

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// secrets are the forms in which mediamtx's log can hold a stream key or a
// read token: a query, and a stream ID of SRT that it could not parse.
var secrets = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`(?i)\b(key|token|pass|jwt)=[^&\s'",]+`), "$1=…"},
	{regexp.MustCompile(`invalid stream ID '[^']*'`), "invalid stream ID '…'"},
	{regexp.MustCompile(`(publish|read):([^:\s]+):\S+`), "$1:$2:…"},
	{regexp.MustCompile(`(//[^/@\s:]*:)[^@\s]+@`), "$1…@"},
}

// Redact blots out what may be a stream key or a token in a line of
// mediamtx's log.
func Redact(line string) string {
	for _, s := range secrets {
		line = s.re.ReplaceAllString(line, s.to)
	}
	return line
}

// maxLogLine bounds a line without an end.
const maxLogLine = 16 << 10

// logWriter passes mediamtx's log on, line by line.
type logWriter struct {
	log hclog.Logger
	mu  sync.Mutex
	buf []byte
}

// NewLogWriter returns a writer for mediamtx's standard output and error. Its
// lines, "2006/01/02 15:04:05 INF [RTMP] …", go to log at their level, without
// secrets.
func NewLogWriter(log hclog.Logger) io.Writer { return &logWriter{log: log} }

func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, p...)
	for {
		i := bytes.IndexByte(w.buf, '\n')
		if i < 0 && len(w.buf) < maxLogLine {
			return len(p), nil
		}
		if i < 0 {
			i = len(w.buf) - 1
		}
		w.line(strings.TrimRight(string(w.buf[:i]), "\r"))
		w.buf = w.buf[i+1:]
	}
}

var logLine = regexp.MustCompile(`^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (DEB|INF|WAR|ERR) (.*)$`)

func (w *logWriter) line(s string) {
	if s == "" {
		return
	}
	level := hclog.Info
	if m := logLine.FindStringSubmatch(s); m != nil {
		level = map[string]hclog.Level{"DEB": hclog.Trace, "INF": hclog.Debug, "WAR": hclog.Warn, "ERR": hclog.Error}[m[1]]
		s = m[2]
	}
	w.log.Log(level, Redact(s))
}
