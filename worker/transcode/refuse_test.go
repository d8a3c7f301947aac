package transcode

import (
	"testing"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// What stays the same is told once, though the texts hold figures that do not.
func TestRefusalsAreToldOnce(t *testing.T) {
	m := newMover(t, "h264")
	session := func(id string) {
		p := m.current()
		p.Source.Session = id
		m.update(p)
		<-m.poke
	}
	for _, c := range []struct {
		code, text string
		told       int
	}{
		{refusedNoRoom, "of 100, 80 are taken", 1},
		{refusedNoRoom, "of 100, 90 are taken", 0},
		{refusedSource, "video codec VP9", 1},
		{refusedSource, "video codec VP9", 0},
		{refusedSource, "video codec VP8", 1},
	} {
		m.refuse(c.code, c.text)
		if s := m.status(); s.State != stream.RunRefused || s.Refused != c.code || s.LastError != c.text {
			t.Errorf("%+v", s)
		}
		if n := m.count("run.refused"); n != c.told {
			t.Errorf("%s (%s) was told %d times, want %d", c.code, c.text, n, c.told)
		}
	}
	m.set(stream.RunWaiting, "") // the publisher is away for a moment
	if s := m.status(); s.Refused != "" {
		t.Errorf("%+v", s)
	}
	m.refuse(refusedSource, "video codec VP8")
	if n := m.count("run.refused"); n != 0 {
		t.Error("told again")
	}
	session("s2")
	m.refuse(refusedSource, "video codec VP8")
	if n := m.count("run.refused"); n != 1 {
		t.Errorf("of another session it was told %d times", n)
	}
}

func TestOnceInASession(t *testing.T) {
	m := newMover(t, "h264")
	for range 3 {
		m.once("s1", "run.track_ignored", "warn", "a second audio track")
	}
	m.once("s1", "run.track_ignored", "warn", "a second video track")
	m.once("s2", "run.track_ignored", "warn", "a second audio track")
	if n := m.count("run.track_ignored"); n != 3 {
		t.Errorf("told %d times", n)
	}
}

func TestStatusSaysWhatTheSourceIs(t *testing.T) {
	m := newMover(t, "h264")
	if s := m.status(); s.Media != nil {
		t.Errorf("%+v", s)
	}
	m.probed(&m.src.media)
	if s := m.status(); s.Media == nil || s.Media.Video.Width != 1280 {
		t.Errorf("%+v", s)
	}
}

// The ledger's refusal has a code of its own.
func TestARunWithoutRoomIsRefused(t *testing.T) {
	m := newMover(t, "h264")
	m.store.full[gpu1], m.store.full[gpu2], m.store.full["cpu"] = true, true, true
	if m.book(m.src, &backoff{}) || m.status().Refused != "no_room" {
		t.Errorf("%+v", m.status())
	}
}
