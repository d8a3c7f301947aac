package transcode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/gpac"
	"github.com/dionysia-dev/dionysia/worker/origin"
)

// loop runs one placement, one GPAC after the other.
//
//	           ┌── no publisher: look again ──┐
//	           ▼                              │
//	begin → waiting ── can't be transcoded → refused ── look again ─┐
//	           ▲ │                                                  │
//	           │ └─ probed → starting → running ── exit, crash, ────┤
//	           │                                  stall, format     │
//	           └──────────────── backoff ◀──────────────────────────┘
//
// From every state: ending → flushed, listed, closed, released → stopped;
// fenced → killed → stopped.
type loop struct {
	m     *Manager
	id    string
	epoch uint64
	log   hclog.Logger
	done  chan struct{} // closed when the loop has ended
	pid   atomic.Int64  // of GPAC; 0 when there is none

	settled     chan struct{} // see Manager.Settled
	settledOnce sync.Once
	poke        chan struct{} // the placement changed
	// ctx ends when the loop must; graceful says whether GPAC may flush.
	ctx      context.Context
	cancel   context.CancelFunc
	graceful atomic.Bool

	prober  prober             // of run's goroutine
	waiting time.Time          // since when there has been no source; of the same
	shunned map[string]shunned // by device; of the same
	slowAt  time.Time          // when the run was found too slow; of the same
	began   time.Time          // when the newest GPAC started, zero before the first; of the same
	unmoved time.Time          // when an event said that no device takes the run; of the same
	unknown time.Time          // since when Redis has not known the placement; the manager's
	missing bool               // Redis was not asked yet why it is not this worker's; under the manager's mu

	saidOf string          // the session that said is of; run's goroutine's
	said   map[string]bool // events that come once in a session, by text; of the same

	mu        sync.Mutex
	placement stream.Placement
	// device is where the run encodes, and reserved what it holds there: the
	// placement's until a failure moved it, whatever Redis knows of that.
	device    string
	reserved  []stream.Reservation
	state     stream.RunState
	runs      uint32 // the current or last one
	restarts  int
	lastError string
	refused   string              // RunStatus.Refused
	told      string              // the refusal that an event has told, "" since a run has started
	media     *stream.SourceMedia // what was probed, and of which session
	session   string
	ladder    stream.Ladder
	handle    *origin.RunHandle
}

func newLoop(m *Manager, p stream.Placement) *loop {
	l := &loop{m: m, id: p.Stream, epoch: p.Epoch, log: m.log.With("stream", p.Stream, "epoch", p.Epoch),
		done: make(chan struct{}), settled: make(chan struct{}), poke: make(chan struct{}, 1), placement: p, state: stream.RunWaiting,
		shunned: map[string]shunned{}, device: p.Device, reserved: p.Reserved}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// update gives the loop its placement's newest state.
func (l *loop) update(p stream.Placement) {
	l.mu.Lock()
	changed := p.State != l.placement.State || p.Source.Session != l.placement.Source.Session
	l.placement = p
	l.mu.Unlock()
	if changed {
		select {
		case l.poke <- struct{}{}:
		default:
		}
	}
}

func (l *loop) current() stream.Placement {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.placement
}

func (l *loop) ending() bool { return l.current().State == stream.PlacementEnding }

// stop ends the loop without releasing its placement.
func (l *loop) stop(why string, graceful bool) {
	if l.ctx.Err() == nil {
		l.log.Info("stopping", "reason", why)
	}
	l.graceful.Store(graceful)
	l.cancel()
}

func (l *loop) over() bool { return l.ctx.Err() != nil }

func (l *loop) settle() { l.settledOnce.Do(func() { close(l.settled) }) }

// set changes the state; an empty text leaves the last error as it is.
func (l *loop) set(s stream.RunState, text string) {
	l.mu.Lock()
	changed := l.state != s
	l.state = s
	if text != "" {
		l.lastError = text
	}
	l.mu.Unlock()
	if changed {
		st := l.status()
		l.m.wg.Go(func() { l.m.putStatus(st) })
	}
}

func (l *loop) status() stream.RunStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := stream.RunStatus{Stream: l.id, Epoch: l.epoch, Run: l.runs, State: l.state, Restarts: l.restarts,
		LastError: l.lastError, Device: l.device, Media: l.media, Session: l.session, UpdatedAt: time.Now().UTC(), Renditions: []stream.RenditionStatus{}}
	if l.state == stream.RunRefused {
		s.Refused = l.refused
	}
	if l.handle == nil {
		return s
	}
	measured := map[string]origin.RungProgress{}
	var oldest time.Time
	for _, p := range l.handle.Progress() {
		measured[p.Name] = p
		if oldest.IsZero() || p.LastSegmentAt.Before(oldest) {
			oldest = p.LastSegmentAt
		}
	}
	for _, v := range l.ladder.Video {
		s.Renditions = append(s.Renditions, stream.RenditionStatus{Name: v.Name, Codec: v.Codec, Width: v.Width, Height: v.Height,
			FPS: measured[v.Name].FPS, Bitrate: measured[v.Name].Bitrate})
	}
	for _, a := range l.ladder.Audio {
		s.Renditions = append(s.Renditions, stream.RenditionStatus{Name: a.Name, Codec: a.Codec, Bitrate: measured[a.Name].Bitrate})
	}
	if !oldest.IsZero() {
		l.m.m.age.WithLabelValues(l.id).Set(time.Since(oldest).Seconds())
	}
	return s
}

// run is the loop's goroutine.
func (l *loop) run(parent context.Context) {
	stop := context.AfterFunc(parent, func() { l.cancel() })
	defer stop()
	defer l.settle()
	defer l.prober.close()
	l.log.Info("placement taken", "worker", l.m.cfg.Worker, "device", l.current().Device, "price", l.current().Price)
	var back backoff
	for !l.over() && !l.ending() {
		src, ok := l.findSource()
		if !ok || !l.book(src, &back) {
			continue
		}
		l.prober.close()
		end := l.runOnce(src)
		if l.over() || l.ending() {
			break
		}
		l.m.m.restarts.WithLabelValues(end.reason).Inc()
		l.mu.Lock()
		l.restarts++
		l.mu.Unlock()
		if end.moved || end.fault != nil && l.moveOn(src, *end.fault) {
			continue
		}
		d := back.next(end)
		l.log.Warn("run ended", "reason", end.reason, "detail", end.detail, "lived", end.lived.Round(time.Millisecond).String(), "again_in", d.String())
		if d > 0 {
			l.set(stream.RunBackoff, end.detail)
			l.wait(d)
		}
	}
	if !l.over() {
		l.finish()
	}
	l.set(stream.RunStopped, "")
}

// wait sleeps until d has passed or the placement changed.
func (l *loop) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.poke:
	case <-l.ctx.Done():
	}
}

// finish brings a placement that is ending to its end: what is whole is public,
// the playlists are closed, the reservation is returned.
func (l *loop) finish() {
	for !l.over() {
		ctx, cancel := context.WithTimeout(l.ctx, 5*time.Second)
		err := l.m.origin.End(ctx, l.id, l.epoch)
		if err == nil {
			err = l.m.store.Release(ctx, l.id, l.epoch)
		}
		cancel()
		if err == nil || errors.Is(err, stream.ErrFenced) || errors.Is(err, stream.ErrNotFound) || errors.Is(err, stream.ErrConflict) {
			l.log.Info("placement ended", "error", err)
			return
		}
		l.log.Warn("can't end the placement yet", "error", err)
		l.wait(time.Second)
	}
}

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
