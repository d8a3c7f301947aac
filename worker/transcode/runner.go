package transcode

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/worker/device"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// Runner runs GPAC for the devices' self-tests and calibrations in the same jail
// as runs: what they prove holds for runs.
func Runner(j Jail, program string) device.Runner {
	s := newSpawner()
	return func(ctx context.Context, dir string, c gpac.Command) ([]byte, time.Duration, error) {
		if err := j.fill(dir, c.Files); err != nil {
			return nil, 0, err
		}
		var out output
		p, err := s.startProcess(j, program, c.Args, c.Env, dir, &out)
		if err != nil {
			return nil, 0, err
		}
		select {
		case <-p.exit:
		case <-ctx.Done():
			p.kill()
		}
		st := p.cmd.ProcessState
		if st == nil {
			return out.bytes(), 0, p.err
		}
		return out.bytes(), st.UserTime() + st.SystemTime(), p.err
	}
}

// fill writes files into a directory and gives it to the user that GPAC runs as.
func (j Jail) fill(dir string, files map[string]string) error {
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("preparing GPAC's directory: %w", err)
		}
	}
	if j.UID < 0 {
		return nil
	}
	if err := os.Chown(dir, j.UID, j.GID); err != nil {
		return fmt.Errorf("preparing GPAC's directory: %w", err)
	}
	for name := range files {
		if err := os.Chown(filepath.Join(dir, name), j.UID, j.GID); err != nil {
			return fmt.Errorf("preparing GPAC's directory: %w", err)
		}
	}
	return nil
}

// output keeps the first maxLogBytes that a program prints.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b[:min(len(b), maxLogBytes-o.text.Len())])
	return len(b), nil
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return []byte(o.text.String())
}
