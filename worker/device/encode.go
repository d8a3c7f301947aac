package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// encodeTimeout bounds one test encode, the start of CUDA included.
const encodeTimeout = time.Minute

// runDirectly runs GPAC as this process's user.
func runDirectly(program string) Runner {
	return func(ctx context.Context, dir string, c gpac.Command) ([]byte, time.Duration, error) {
		for name, text := range c.Files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				return nil, 0, err
			}
		}
		cmd := exec.CommandContext(ctx, program, c.Args...)
		cmd.Dir, cmd.WaitDelay = dir, time.Second
		cmd.Env = append(append([]string{}, c.Env...), "HOME="+dir, "TMPDIR="+dir)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil {
			return out, 0, err
		}
		return out, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), err
	}
}

// encodeError is of an encode that GPAC ran and that made no right output.
type encodeError struct {
	words string // GPAC's own, and what was wrong with the output
	err   error
}

func (e *encodeError) Error() string { return "the test encode failed: " + e.words }
func (e *encodeError) Unwrap() error { return e.err }

// encode runs a test encode and checks what it made: all frames, of the codec.
// It returns the CPU time and the time that GPAC took. The error is an
// *encodeError when it is the encoder's doing.
func encode(ctx context.Context, run Runner, t gpac.TestEncode) (cpu, wall time.Duration, err error) {
	cmd, err := t.Command()
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, encodeTimeout)
	defer cancel()
	dir, err := os.MkdirTemp("", "dionysia-encode")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	start := time.Now()
	out, cpu, err := run(ctx, dir, cmd)
	wall = time.Since(start)
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return cpu, wall, &encodeError{fmt.Sprintf("%s after %s", ownWords(out), wall.Round(time.Second)), ctx.Err()}
	case errors.As(err, &exit):
		return cpu, wall, &encodeError{ownWords(out), err}
	case err != nil:
		return cpu, wall, fmt.Errorf("running GPAC: %w", err)
	}
	for i := range t.Sessions {
		if err := checkOutput(filepath.Join(dir, gpac.TestOutput(i)), t.Codec, t.Frames); err != nil {
			return cpu, wall, &encodeError{fmt.Sprintf("%s (%s)", ownWords(out), err), err}
		}
	}
	return cpu, wall, nil
}

// sampleEntries are the MP4 sample entries of each codec.
var sampleEntries = map[string]string{"h264": "avc1 avc3", "hevc": "hvc1 hev1", "av1": "av01"}

// checkOutput reads an MP4 file of one track.
func checkOutput(file, codec string, frames int) error {
	f, err := mp4.ReadMP4File(file)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return errors.New("it wrote nothing")
		}
		return fmt.Errorf("its output can't be read: %w", err)
	}
	if f.Moov == nil || f.Moov.Trak == nil || f.Moov.Trak.Mdia == nil || f.Moov.Trak.Mdia.Minf == nil || f.Moov.Trak.Mdia.Minf.Stbl == nil ||
		f.Moov.Trak.Mdia.Minf.Stbl.Stsd == nil || len(f.Moov.Trak.Mdia.Minf.Stbl.Stsd.Children) == 0 {
		return errors.New("its output has no track")
	}
	stbl := f.Moov.Trak.Mdia.Minf.Stbl
	if entry := stbl.Stsd.Children[0].Type(); !strings.Contains(sampleEntries[codec], entry) {
		return fmt.Errorf("its output is %s, not %s", entry, codec)
	}
	if stbl.Stsz == nil || int(stbl.Stsz.SampleNumber) < frames {
		return fmt.Errorf("its output has not all %d frames", frames)
	}
	return nil
}

// ownWords is the line of what GPAC printed that tells the cause, shortened: the
// first of its encoder or CUDA, else the first.
func ownWords(out []byte) string {
	words := ""
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if words == "" {
			words = line
		}
		if strings.Contains(line, "FFEnc") || strings.Contains(line, "nvenc") || strings.Contains(strings.ToLower(line), "cuda") {
			words = line
			break
		}
	}
	if words == "" {
		return "GPAC printed nothing"
	}
	return shorten(words)
}
