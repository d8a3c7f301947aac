package e2e

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// Deadlines on a machine that is busy; what is awaited mostly comes in a tenth.
const (
	goesLive = 60 * time.Second
	aWhile   = 30 * time.Second
)

func realTime(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs in real time")
	}
}

// newStream creates a stream with the small ladder, which it makes first.
func newStream(t *testing.T, d *kit.Dev, s kit.StreamSpec) (key string) {
	t.Helper()
	if s.Profile == "" {
		s.Profile = "e2e"
		if err := d.PutProfile(s.Profile, kit.SmallLadder()); err != nil {
			t.Fatalf("making the profile: %v", err)
		}
	}
	key, err := d.CreateStream(s)
	if err != nil {
		t.Fatalf("creating the stream: %v", err)
	}
	return key
}

// refused runs a publisher that must be turned away within aWhile.
func refused(t *testing.T, what string, target []string) {
	t.Helper()
	p := kit.Publish(t, kit.Picture{}, target)
	select {
	case <-p.Done():
		if p.ExitCode() == 0 {
			t.Errorf("%s: the publisher was accepted", what)
		}
	case <-time.After(aWhile):
		t.Errorf("%s: the publisher still sends after %v", what, aWhile)
	}
	p.Kill()
}

// stopPublisher ends a publisher as an encoder's stop button does.
func stopPublisher(t *testing.T, p *kit.Proc) {
	t.Helper()
	if err := p.Stop(syscall.SIGINT, 15*time.Second); err != nil {
		t.Fatalf("%v", err)
	}
}

func waitState(t *testing.T, d *kit.Dev, stream string, limit time.Duration, want ...string) kit.StreamStatus {
	t.Helper()
	var s kit.StreamStatus
	kit.Eventually(t, limit, fmt.Sprintf("%s being %v", stream, want), func() error {
		var err error
		if s, err = d.Status(stream); err != nil {
			return err
		}
		for _, w := range want {
			if s.State == w {
				return nil
			}
		}
		return fmt.Errorf("it is %s (run %+v): %s", s.State, s.Run, s.LastError)
	})
	return s
}

func noGPAC(t *testing.T, d *kit.Dev, limit time.Duration) {
	t.Helper()
	kit.Eventually(t, limit, "no GPAC running", func() error {
		if ps := d.GPACs(); len(ps) > 0 {
			return fmt.Errorf("%v", ps)
		}
		return nil
	})
}

// contains reports an error unless text contains all of the words.
func contains(text string, words ...string) error {
	var missing []error
	for _, w := range words {
		if !strings.Contains(text, w) {
			missing = append(missing, fmt.Errorf("%q is missing in %.300q", w, text))
		}
	}
	return errors.Join(missing...)
}
