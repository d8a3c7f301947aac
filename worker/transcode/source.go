package transcode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/gpac"
)

// found is a source that can be transcoded.
type found struct {
	source
	placement stream.Placement
	ladder    stream.Ladder
	full      []stream.OutVideo // see origin.RunStart
}

// patientAfter is how long an absent source is looked for often: a publisher
// that returns within its grace.
const patientAfter = 30 * time.Second

// note reports whether an error is not the last one again.
func (l *loop) note(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastError != text
}

// findSource probes once; when there is nothing to run it waits a moment and
// returns false.
func (l *loop) findSource() (found, bool) {
	p := l.current()
	url, err := l.url(p.Source.RTSP)
	if err != nil {
		l.refuse(refusedSource, err.Error())
		return found{}, false
	}
	ctx, cancel := context.WithTimeout(l.ctx, 20*time.Second)
	defer cancel()
	src, err := l.prober.probe(ctx, url, true)
	if l.over() {
		return found{}, false
	}
	var no refusal
	switch {
	case errors.Is(err, errAbsent):
		l.probed(nil)
		l.set(stream.RunWaiting, "")
		if l.waiting.IsZero() {
			l.waiting = time.Now()
		}
		d := l.m.cfg.Poll
		if time.Since(l.waiting) > patientAfter {
			d *= 4
		}
		l.wait(d)
		return found{}, false
	case errors.As(err, &no):
		l.refuse(refusedSource, no.reason)
		return found{}, false
	case err != nil:
		if l.note(err.Error()) {
			l.log.Warn("can't probe the source", "error", err)
		}
		l.set(stream.RunWaiting, err.Error())
		l.wait(l.m.cfg.Poll)
		return found{}, false
	}
	l.waiting = time.Time{}
	l.heard()
	l.probed(&src.media)
	for _, t := range src.ignored {
		l.once(p.Source.Session, "run.track_ignored", "warn", t)
	}
	ladder, err := p.Profile.Ladder(src.media)
	if err != nil {
		l.refuse(refusedProfile, err.Error())
		return found{}, false
	}
	return found{source: src, placement: p, ladder: ladder, full: fullVideo(p, src.media)}, true
}

// fullVideo is what would be made of the source if the placement had room for
// the rungs that it leaves out; nil when it leaves none.
func fullVideo(p stream.Placement, media stream.SourceMedia) []stream.OutVideo {
	if len(p.Dropped) == 0 {
		return nil
	}
	whole := p.Profile
	whole.Video = append(slices.Clone(p.Dropped), p.Profile.Video...)
	l, err := whole.Ladder(media)
	if err != nil {
		return nil
	}
	return l.Video
}

// probed notes what the source is.
func (l *loop) probed(media *stream.SourceMedia) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.media, l.session = media, l.placement.Source.Session
}

// once sends an event once for a session and text.
func (l *loop) once(session, typ, level, text string) {
	if l.said == nil || l.saidOf != session {
		l.saidOf, l.said = session, map[string]bool{}
	}
	if !l.said[typ+text] {
		l.said[typ+text] = true
		l.m.event(l.id, typ, level, text)
	}
}

// Why a source is refused, as stream.RunStatus.Refused says it.
const (
	refusedSource   = "source"   // it can't be transcoded, whatever the profile
	refusedProfile  = "profile"  // the profile makes nothing of it
	refusedDevice   = "device"   // no device of the worker has the codecs
	refusedNoRoom   = "no_room"  // it is dearer than the room that is left
	refusedPipeline = "pipeline" // GPAC can't be asked for it
)

// refuse says that the source can't be transcoded: once until a run starts, unless
// the reason is another one or the session is. Texts of no_room differ each time,
// for they hold what others hold. It looks again later: another publisher may come.
func (l *loop) refuse(code, reason string) {
	l.mu.Lock()
	told := code + " " + l.placement.Source.Session
	if code != refusedNoRoom {
		told += " " + reason
	}
	again := l.told == told
	l.told, l.refused = told, code
	l.mu.Unlock()
	l.set(stream.RunRefused, reason)
	if !again {
		l.log.Warn("source refused", "reason", reason)
		l.m.event(l.id, "run.refused", "error", reason)
	}
	l.settle()
	l.wait(max(l.m.cfg.Poll, time.Second))
}

// url adds this worker's read token to a source URL.
func (l *loop) url(base string) (string, error) {
	if l.m.cfg.Token == nil || base == "" {
		return base, nil
	}
	_, rest, ok := strings.Cut(base, "://")
	_, path, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return "", fmt.Errorf("source URL %q has no path", base)
	}
	token, err := l.m.cfg.Token(path)
	if err != nil {
		return "", fmt.Errorf("making a read token: %w", err)
	}
	return base + "?token=" + token, nil
}

// pull chooses how GPAC reads the source: RTMP for what was published by RTMP,
// for its timestamps are the publisher's; RTSP over TCP otherwise. MP3 comes by
// RTSP too: its frames of 1152 samples lose time in RTMP's milliseconds on GPAC
// 1.0.1. So does what was published by another protocol: mediamtx 1.15.3 closes
// RTMP readers of SRT sources with B-frames ("DTS is greater than PTS").
func pull(p stream.Placement, media stream.SourceMedia) string {
	video := media.Video == nil || media.Video.Codec == "h264"
	audio := media.Audio == nil || media.Audio.Codec == "aac"
	published := p.Source.Protocol == "rtmp" || p.Source.Protocol == ""
	if video && audio && published && p.Source.RTMP != "" {
		return p.Source.RTMP
	}
	return p.Source.RTSP
}

// prepare makes the run's directory and GPAC's command, which reads base.
func (l *loop) prepare(src found, id stream.RunID, base string) (gpac.Command, string, error) {
	url, err := l.url(base)
	if err != nil {
		return gpac.Command{}, "", err
	}
	device, _ := l.place()
	cmd, err := gpac.Build(gpac.Spec{Version: l.m.cfg.Version, Source: url, Media: src.media, Parameters: src.parameters, Ladder: src.ladder,
		GPU: gpuOf(device), Keep: src.placement.Window.Duration() + 2*time.Minute})
	if err != nil {
		return gpac.Command{}, "", err
	}
	dir := filepath.Join(l.m.cfg.Dir, l.id, id.String())
	if err := os.RemoveAll(dir); err != nil {
		return gpac.Command{}, "", fmt.Errorf("preparing the run's directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return gpac.Command{}, "", fmt.Errorf("preparing the run's directory: %w", err)
	}
	if err := l.m.cfg.Jail.fill(dir, cmd.Files); err != nil {
		return gpac.Command{}, "", err
	}
	return cmd, dir, nil
}
