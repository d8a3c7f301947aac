package origin

import (
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// RunStart describes a run whose GPAC is about to start.
type RunStart struct {
	Placement stream.Placement
	ID        stream.RunID
	// Dir exists, is the run's alone, and is removed by the origin once nothing
	// of the run is fetchable any more.
	Dir    string
	Ladder stream.Ladder
	// Full is the video that the source would get if there were room, when the
	// placement leaves rungs out (Placement.Dropped); else nil. A broadcast has a
	// variant for each from its start.
	Full []stream.OutVideo
}

// RungProgress is what one rendition of a run has produced.
type RungProgress struct {
	Name string
	// LastSegmentAt is when its newest whole segment was written; zero before
	// the first.
	LastSegmentAt time.Time
	// Segments counts its whole segments, listed or not.
	Segments int
	// MediaEnd is where its newest whole segment ends, in the run's media time.
	MediaEnd time.Duration
	// FPS and Bitrate (bits per second) are measured over the newest segment;
	// FPS is 0 for audio.
	FPS     float64
	Bitrate int64
}

// RunHandle is a run as its supervisor sees it.
type RunHandle struct{ run *runState }

// Stopped says that GPAC has exited: what is whole is listed, and no more is
// looked for. It returns at once; Done tells when that has happened.
func (h *RunHandle) Stopped() { h.run.stop() }

// Done is closed when the run lists nothing any more.
func (h *RunHandle) Done() <-chan struct{} { return h.run.done }

// Fenced is closed when a higher epoch exists: the supervisor must kill GPAC.
func (h *RunHandle) Fenced() <-chan struct{} { return h.run.fenced }

// Progress returns one entry for each rendition of the ladder, video first.
func (h *RunHandle) Progress() []RungProgress {
	h.run.mu.Lock()
	defer h.run.mu.Unlock()
	return slices.Clone(h.run.progress)
}

// Listed is how many segments of the run are or were public.
func (h *RunHandle) Listed() int {
	h.run.mu.Lock()
	defer h.run.mu.Unlock()
	return h.run.listedCount
}

// Bytes is what the run's directory held when it was last looked at, at most a
// second ago.
func (h *RunHandle) Bytes() int64 {
	h.run.mu.Lock()
	defer h.run.mu.Unlock()
	return h.run.bytes
}

// rep is one representation's files as far as they are known.
type rep struct {
	prefix  string
	init    *initInfo
	parts   map[uint64]segmentInfo
	written map[uint64]time.Time
}

// runState finds a run's whole segments. Its goroutine owns everything above mu.
type runState struct {
	o       *Origin
	st      *state
	start   RunStart
	log     hclog.Logger
	started time.Time

	reps   map[string]*rep
	made   []made         // in the ladder's order, once all are known
	tracks []stream.Track // beside made
	next   uint64         // the next local number to list
	listed bool           // something of it is public; guarded by st.mu
	past   bool           // an earlier process's: done, and only fetchable

	unwatch func() // nil when there are no events
	signal  chan struct{}
	stopCh  chan struct{}
	done    chan struct{}
	fenced  chan struct{}
	once    struct{ stop, fence sync.Once }

	mu          sync.Mutex
	closed      map[string]bool // files that were closed, not looked at yet
	progress    []RungProgress
	bytes       int64
	listedCount int
}

// The names of GPAC's files: <representation>_<number>.m4s and its init.
var (
	segmentName = regexp.MustCompile(`^([A-Za-z0-9_-]{1,64})_([1-9][0-9]{0,18})\.m4s$`)
	initName    = regexp.MustCompile(`^([A-Za-z0-9_-]{1,64})_(?:init)?\.mp4$`)
)

func fileName(prefix string, local uint64) string {
	return prefix + "_" + strconv.FormatUint(local, 10) + ".m4s"
}

// path is where the i-th rendition's segment with a local number is.
func (r *runState) path(i int, local uint64) string {
	return filepath.Join(r.start.Dir, fileName(r.made[i].prefix, local))
}

func newRun(o *Origin, st *state, start RunStart) *runState {
	r := &runState{o: o, st: st, start: start, started: o.cfg.Now(), reps: map[string]*rep{},
		log:    st.log.With("run", start.ID.String()),
		signal: make(chan struct{}, 1), stopCh: make(chan struct{}), done: make(chan struct{}), fenced: make(chan struct{}),
		closed: map[string]bool{}}
	for _, v := range start.Ladder.Video {
		r.progress = append(r.progress, RungProgress{Name: v.Name})
	}
	for _, a := range start.Ladder.Audio {
		r.progress = append(r.progress, RungProgress{Name: a.Name})
	}
	// Before the first file can be there, so that no event is missed.
	var err error
	if r.unwatch, err = o.watch(start.Dir, r.fileClosed); err != nil {
		r.log.Warn("no file events: polling", "error", err)
	}
	return r
}

func (r *runState) stop()  { r.once.stop.Do(func() { close(r.stopCh) }) }
func (r *runState) fence() { r.once.fence.Do(func() { close(r.fenced) }) }

// fileClosed is called by the watcher.
func (r *runState) fileClosed(name string) {
	r.mu.Lock()
	r.closed[name] = true
	r.mu.Unlock()
	select {
	case r.signal <- struct{}{}:
	default:
	}
}

// loop lists the run's segments until it is stopped, fenced or the origin closes.
//
//	predecessor done → adopt → (file closed | poll → look → list)* → stopped → look → list → done
func (r *runState) loop(predecessors []*runState) {
	defer close(r.done)
	if r.unwatch != nil {
		defer r.unwatch()
	}
	for _, p := range predecessors {
		select {
		case <-p.done:
		case <-r.o.ctx.Done():
			return
		}
	}
	r.st.mu.Lock()
	if r.st.fencedBy.Load() > r.start.ID.Epoch {
		r.st.mu.Unlock()
		r.fence()
		return
	}
	if err := r.o.adopt(r.st, r.start.Placement, r.start.ID); errors.Is(err, stream.ErrFenced) {
		r.st.mu.Unlock()
		r.o.Fence(r.st.id, r.start.ID.Epoch+1)
		return
	} else if err != nil {
		r.log.Error("can't prepare the list", "error", err)
	}
	r.st.configure(r.start.Placement)
	err := r.st.publish(r.o.cfg.Now())
	r.st.mu.Unlock()
	if err != nil {
		r.log.Error("can't publish", "error", err)
	}

	poll := r.o.cfg.Poll
	if r.unwatch == nil {
		poll /= 5
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		final := false
		select {
		case <-r.signal:
			r.lookAtClosed()
		case <-ticker.C:
			r.lookAtAll(false)
		case <-r.stopCh:
			final = true
			r.lookAtAll(true)
		case <-r.fenced:
			return
		case <-r.o.ctx.Done():
			return
		}
		if err := r.advance(); errors.Is(err, stream.ErrFenced) {
			r.o.Fence(r.st.id, r.start.ID.Epoch+1)
			return
		} else if err != nil {
			r.log.Error("can't list", "error", err)
		}
		if final {
			return
		}
	}
}

// identify maps the representations to renditions when each has its first segment.
func (r *runState) identify() bool {
	if r.made != nil {
		return true
	}
	var all []made
	var first uint64
	for _, rep := range r.reps {
		n, info, ok := oldest(rep.parts)
		if !ok {
			return false
		}
		first = max(first, n)
		seconds := float64(info.duration) / float64(rep.init.track.Timescale)
		m := made{prefix: rep.prefix, init: rep.init, bitrate: int64(float64(info.size) * 8 / seconds)}
		if rep.init.track.Kind == stream.Video {
			m.fps = stream.Rate{Num: int64(info.frames) * int64(rep.init.track.Timescale), Den: int64(info.duration)}
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b made) int { return compareNames(a.prefix, b.prefix) })
	made, tracks, ok := match(r.start.Ladder, all)
	if !ok || len(made) == 0 {
		return false
	}
	r.made, r.tracks, r.next = made, tracks, first
	for i, m := range made {
		rep := r.reps[m.prefix]
		if m.prefix == tracks[i].Name {
			continue // noted as they came
		}
		for _, n := range sortedKeys(rep.parts) {
			r.note(m.prefix, rep, rep.parts[n], rep.written[n])
		}
	}
	r.log.Info("renditions identified", "renditions", len(made))
	return true
}

// advance lists every local number that all renditions have, in order.
func (r *runState) advance() error {
	if !r.identify() {
		return nil
	}
	for {
		infos := make([]segmentInfo, len(r.made))
		var written time.Time
		for i, m := range r.made {
			rep := r.reps[m.prefix]
			info, ok := rep.parts[r.next]
			if !ok {
				return nil
			}
			info.duration = exactDuration(r.tracks[i], info)
			infos[i] = info
			if w := rep.written[r.next]; w.After(written) {
				written = w
			}
		}
		if !aligned(r.tracks, infos) {
			r.log.Debug("renditions differ: not listed", "local", r.next)
			return nil
		}
		if err := r.o.list(r.st, r, r.next, infos, written); err != nil {
			return err
		}
		for _, m := range r.made {
			rep := r.reps[m.prefix]
			delete(rep.parts, r.next)
			delete(rep.written, r.next)
		}
		r.next++
		r.mu.Lock()
		r.listedCount++
		r.mu.Unlock()
	}
}

// alignment is how far the video renditions' durations may be apart. A segment
// that was cut off after a whole fragment differs by more.
const alignment = 250 * time.Millisecond

func aligned(tracks []stream.Track, infos []segmentInfo) bool {
	for i, t := range tracks {
		if t.Kind != stream.Video {
			break
		}
		d := ticks(infos[i].duration, t.Timescale) - ticks(infos[0].duration, tracks[0].Timescale)
		if d.Abs() > alignment {
			return false
		}
	}
	return true
}

func oldest(parts map[uint64]segmentInfo) (uint64, segmentInfo, bool) {
	keys := sortedKeys(parts)
	if len(keys) == 0 {
		return 0, segmentInfo{}, false
	}
	return keys[0], parts[keys[0]], true
}
