package transcode

import (
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/worker/origin"
)

// gaveUp looks whether the run's encoder has given up. GPAC itself may go on
// without it: 1.0.1 runs, and makes nothing, until its source ends.
func (l *loop) gaveUp(ring *logRing) *fault {
	lines := ring.givenUp()
	if len(lines) == 0 {
		return nil
	}
	id, _ := l.place()
	if f, ok := encoderFault(lines, find(l.m.devices(), id)); ok {
		l.teach(id, f, 1)
		return &f
	}
	return nil
}

// blame finds out whether a run that ended by itself did so for its device: its
// encoder gave up, or never gave anything until the source left.
func (l *loop) blame(e *end, h *origin.RunHandle, ring *logRing) {
	if e.fault != nil || e.reason != endCrash && e.reason != endStall && (e.reason != endSource || h.Listed() > 0) {
		return
	}
	if f := l.gaveUp(ring); f != nil {
		e.reason, e.detail, e.fault = endEncoder, e.detail+": "+f.detail, f
	}
}

// slowAgain is how long a run that is too slow, and can go nowhere else, is left
// alone before that is judged, and taught, again.
const slowAgain = time.Minute

// tooSlow looks whether the run keeps up; see slower.
func (l *loop) tooSlow(speed *pace, src found, h *origin.RunHandle, proc *process) *fault {
	if time.Since(l.slowAt) < slowAgain {
		return nil
	}
	speed.observe(h.Progress())
	if _, _, slow := speed.slow(src.ladder.Segment.Duration()); !slow {
		speed.looks, speed.unread = 0, 0
		return nil
	}
	speed.look(unread(proc.pid()))
	return l.slower(speed, src)
}

// slower finds out who makes a slow run slow. The device that holds it up learns
// so. When that is the run's own, and another one takes the run, the fault is
// returned: what it holds is there already, and this run is to end.
func (l *loop) slower(speed *pace, src found) *fault {
	name, value, slow := speed.slow(src.ladder.Segment.Duration())
	delivers, known := speed.delivers()
	if !slow || !known || time.Since(l.slowAt) < slowAgain {
		return nil
	}
	speed.again()
	id, _ := l.place()
	r := l.m.devices()
	cpu, _ := r.Device(capacity.ResourceCPU)
	culprit, f, ok := paceFault(pacing{name: name, pace: value, delivers: delivers, device: find(r, id), load: cpu.Load})
	if !ok {
		l.log.Info("the run is slower than real time, as its source is", "rendition", name, "pace", value)
		return nil
	}
	l.slowAt = time.Now()
	l.teach(culprit, f, value)
	if culprit == id {
		if fit, _ := l.elsewhere(src); len(fit) > 0 && l.moveOn(src, f) {
			return &f
		}
	}
	l.m.event(l.id, "run.slow", "warn", named(find(r, culprit))+": "+f.String())
	return nil
}
