package transcode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/gpac"
	"github.com/dionysia-dev/dionysia/worker/origin"
)

// Why a run ended; also the label of the restart counter.
const (
	endSource  = "source"  // GPAC ended by itself, well: the publisher left
	endCrash   = "crash"   // it failed or was killed
	endStart   = "start"   // it could not be started
	endStall   = "stall"   // it produced nothing for too long
	endFormat  = "format"  // the source changed
	endLimit   = "limit"   // its directory grew too large
	endEncoder = "encoder" // its device's encoder failed
	endSlow    = "slow"    // its device did not keep up, and another may
	endStopped = "stopped" // the loop was told to stop
)

// end is how a run ended.
type end struct {
	reason string
	detail string
	lived  time.Duration
	fault  *fault // nil when it was not the device
	moved  bool   // the next run is on another device already
}

// backoff delays restarts after failures.
type backoff struct{ failures int }

// healthy is how long a run must live for earlier failures to be forgotten.
const healthy = time.Minute

func (b *backoff) next(e end) time.Duration {
	if e.lived >= healthy || e.reason == endFormat {
		b.failures = 0
	}
	if e.reason == endFormat || e.reason == endSource && e.lived > 5*time.Second {
		return 0 // the probe finds out whether there is a source
	}
	steps := []time.Duration{0, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second}
	d := steps[min(b.failures, len(steps)-1)]
	b.failures++
	return d
}

// runOnce is one GPAC process from start to end.
func (l *loop) runOnce(src found) end {
	l.awaitLeavers()
	if l.over() {
		return end{reason: endStopped, detail: "stopped before it began"}
	}
	l.mu.Lock()
	l.runs++
	id := stream.RunID{Epoch: l.epoch, Run: l.runs}
	l.mu.Unlock()
	started := time.Now()
	base, closeRelay, err := relayed(pull(src.placement, src.media))
	if err != nil {
		return l.failed(id, err)
	}
	defer closeRelay()
	cmd, dir, err := l.prepare(src, id, base)
	if errors.Is(err, gpac.ErrSpec) {
		l.refuse(refusedPipeline, err.Error())
		return end{reason: endStart, detail: err.Error()}
	}
	if err != nil {
		return l.failed(id, err)
	}
	handle := l.m.origin.StartRun(origin.RunStart{Placement: src.placement, ID: id, Dir: dir, Ladder: src.ladder, Full: src.full})
	defer handle.Stopped()
	ring := newLogRing(filepath.Join(l.m.cfg.Dir, l.id, id.String()+".log"))
	defer ring.close()
	defer l.dropLogs(id)
	proc, err := l.m.spawner.startProcess(l.m.cfg.Jail, l.m.cfg.GPAC, cmd.Args, cmd.Env, dir, ring)
	if err != nil {
		return l.failed(id, err)
	}
	l.log.Info("GPAC started", "run", id.String(), "pid", proc.pid(), "command", cmd.String())
	l.mu.Lock()
	l.handle, l.ladder, l.told = handle, src.ladder, ""
	l.mu.Unlock()
	l.pid.Store(int64(proc.pid()))
	l.began = time.Now()
	l.set(stream.RunStarting, "")
	l.settle()
	l.m.event(l.id, "run.started", "info", fmt.Sprintf("run %s on %s: %s", id, l.m.cfg.Worker, describeLadder(src)))

	device, _ := l.place()
	e := l.supervise(src, handle, proc, ring, started)
	// Whatever it was, nothing of GPAC is left when the next one starts.
	if e.reason == endFormat || e.reason == endSlow || e.reason == endStopped && (l.graceful.Load() || l.ending()) {
		proc.stop()
	}
	proc.kill()
	l.heard() // before it counts as gone
	l.pid.Store(0)
	if st := proc.cmd.ProcessState; st != nil {
		l.m.retire(device, st.UserTime()+st.SystemTime())
	}
	e.lived = time.Since(started)
	l.blame(&e, handle, ring)
	if e.reason == endCrash || e.reason == endStall {
		if t := ring.tail(3); t != "" {
			e.detail += ": " + t
		}
	}
	l.record(id, e)
	handle.Stopped()
	l.awaitListing(handle)
	return e
}

// failed reports a run that could not be started.
func (l *loop) failed(id stream.RunID, err error) end {
	e := end{reason: endStart, detail: err.Error()}
	l.record(id, e)
	l.settle()
	return e
}

// awaitListing lets the origin list what is whole, so that the runs' order is
// kept, but not for long.
func (l *loop) awaitListing(h *origin.RunHandle) {
	select {
	case <-h.Done():
	case <-l.ctx.Done():
	case <-time.After(2 * time.Second):
	}
}

// record tells the log, the events and the status how a run ended.
func (l *loop) record(id stream.RunID, e end) {
	typ, level := "run.ended", "info"
	switch e.reason {
	case endCrash, endStart, endEncoder:
		typ, level = "run.crashed", "error"
	case endStall:
		typ, level = "run.stalled", "error"
	case endLimit:
		typ, level = "run.limit", "error"
	case endSlow:
		typ, level = "run.slow", "warn"
	case endFormat:
		typ = "run.format_changed"
	}
	if level == "error" {
		l.mu.Lock()
		l.lastError = e.detail
		l.mu.Unlock()
	}
	l.m.event(l.id, typ, level, fmt.Sprintf("run %s: %s", id, e.detail))
}

// supervise watches what a run produces until it ends or must end.
func (l *loop) supervise(src found, h *origin.RunHandle, proc *process, ring *logRing, started time.Time) end {
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	changes := l.watchFormat(ctx, src)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	segment := src.ladder.Segment.Duration()
	patience := max(3*segment, 6*time.Second)
	public := false
	var speed pace
	for {
		select {
		case <-proc.exit:
			if proc.err == nil {
				return end{reason: endSource, detail: "GPAC ended: the source closed"}
			}
			return end{reason: endCrash, detail: "GPAC " + proc.how()}
		case <-l.ctx.Done():
			return end{reason: endStopped, detail: "stopped"}
		case <-h.Fenced():
			l.stop("fenced at the origin", false)
			return end{reason: endStopped, detail: "fenced by a higher epoch"}
		case what := <-changes:
			return end{reason: endFormat, detail: "the source changed: " + what}
		case <-l.poke:
		case <-tick.C:
		}
		if l.ending() {
			return end{reason: endStopped, detail: "the broadcast is over"}
		}
		if !public && h.Listed() > 0 {
			public = true
			l.m.m.starting.Observe(time.Since(started).Seconds())
			l.set(stream.RunRunning, "")
		}
		if n := h.Bytes(); n > l.m.cfg.RunLimit {
			return end{reason: endLimit, detail: fmt.Sprintf("its directory holds %d bytes, at most %d are allowed", n, l.m.cfg.RunLimit)}
		}
		if f := l.gaveUp(ring); f != nil {
			return end{reason: endEncoder, detail: f.detail, fault: f}
		}
		if f := l.tooSlow(&speed, src, h, proc); f != nil {
			return end{reason: endSlow, detail: f.detail, fault: f, moved: true}
		}
		if stuck := stalled(h.Progress(), time.Now(), started, l.m.cfg.StartTimeout, patience); stuck != "" {
			return end{reason: endStall, detail: stuck}
		}
	}
}

// stalled says which rendition has produced nothing for too long, "" when none.
func stalled(rungs []origin.RungProgress, now, started time.Time, start, patience time.Duration) string {
	for _, r := range rungs {
		if r.LastSegmentAt.IsZero() {
			if now.Sub(started) > start {
				return fmt.Sprintf("%s has no segment %.0f s after the start, at most %.0f s are allowed", r.Name, now.Sub(started).Seconds(), start.Seconds())
			}
			continue
		}
		if age := now.Sub(r.LastSegmentAt); age > patience {
			return fmt.Sprintf("the newest segment of %s is %.1f s old, at most %.1f s are allowed", r.Name, age.Seconds(), patience.Seconds())
		}
	}
	return ""
}

// watchFormat looks each second whether the source still is what it was.
func (l *loop) watchFormat(ctx context.Context, src found) <-chan string {
	out := make(chan string, 1)
	go func() {
		var p prober
		defer p.close()
		for sleep(ctx, time.Second) {
			url, err := l.url(l.current().Source.RTSP)
			if err != nil {
				continue
			}
			pctx, cancel := context.WithTimeout(ctx, 2*dialTimeout)
			now, err := p.probe(pctx, url, false)
			cancel()
			var no refusal
			switch {
			case errors.As(err, &no):
				out <- no.reason
				return
			case err != nil: // gone or unreachable: GPAC notices by itself
				continue
			}
			if what := src.changed(now); what != "" {
				out <- what
				return
			}
		}
	}()
	return out
}

// keptLogs is how many GPAC logs of a stream are left on disk.
const keptLogs = 5

func (l *loop) dropLogs(id stream.RunID) {
	if id.Run > keptLogs {
		old := stream.RunID{Epoch: id.Epoch, Run: id.Run - keptLogs}
		_ = os.Remove(filepath.Join(l.m.cfg.Dir, l.id, old.String()+".log"))
	}
}

func describeLadder(src found) string {
	text := "source"
	if v := src.media.Video; v != nil {
		text += fmt.Sprintf(" %s %d×%d %.3f fps", v.Codec, v.Width, v.Height, v.FPS.Float())
	}
	if a := src.media.Audio; a != nil {
		text += fmt.Sprintf(" %s %d Hz %d ch", a.Codec, a.SampleRate, a.Channels)
	}
	text += " →"
	for _, v := range src.ladder.Video {
		text += fmt.Sprintf(" %s (%d×%d, %.3f fps)", v.Name, v.Width, v.Height, v.FPS.Float())
	}
	for _, a := range src.ladder.Audio {
		text += " " + a.Name
	}
	return text
}
