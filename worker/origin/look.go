package origin

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// lookAtClosed looks at the files that were closed since the last time.
func (r *runState) lookAtClosed() {
	r.mu.Lock()
	names := r.closed
	r.closed = map[string]bool{}
	r.mu.Unlock()
	for name := range names {
		r.lookAtInit(name)
	}
	for name := range names {
		r.lookAtSegment(name)
	}
}

// settled is how long a file must have been left alone to be looked at when no
// event told that it was closed.
const settled = time.Second

// lookAtAll looks at every file that can be whole: the newest of a
// representation only when it was left alone for a while, or at the run's end.
func (r *runState) lookAtAll(final bool) {
	entries, err := os.ReadDir(r.start.Dir)
	if err != nil {
		r.log.Warn("can't read the run's directory", "error", err)
		return
	}
	var bytes int64
	newest := map[string]uint64{}
	for _, e := range entries {
		r.lookAtInit(e.Name())
		if p, n, ok := parseSegmentName(e.Name()); ok {
			newest[p] = max(newest[p], n)
		}
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			continue
		}
		bytes += fi.Size()
		p, n, ok := parseSegmentName(e.Name())
		if ok && (final || n < newest[p] || r.o.cfg.Now().Sub(fi.ModTime()) > settled) {
			r.lookAtSegment(e.Name())
		}
	}
	r.mu.Lock()
	r.bytes = bytes
	r.mu.Unlock()
}

func (r *runState) lookAtInit(name string) {
	m := initName.FindStringSubmatch(name)
	if m == nil || r.reps[m[1]] != nil {
		return
	}
	info, err := readInit(filepath.Join(r.start.Dir, name))
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			r.log.Debug("init not usable yet", "file", name, "error", err)
		}
		return
	}
	r.reps[m[1]] = &rep{prefix: m[1], init: &info, parts: map[uint64]segmentInfo{}, written: map[uint64]time.Time{}}
}

func parseSegmentName(name string) (prefix string, local uint64, ok bool) {
	m := segmentName.FindStringSubmatch(name)
	if m == nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(m[2], 10, 64)
	return m[1], n, err == nil
}

func (r *runState) lookAtSegment(name string) {
	prefix, local, ok := parseSegmentName(name)
	rep := r.reps[prefix]
	if !ok || rep == nil || local < r.next {
		return
	}
	if _, known := rep.parts[local]; known {
		return
	}
	path := filepath.Join(r.start.Dir, name)
	info, err := readSegment(path, rep.init)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			r.log.Debug("segment not whole", "file", name, "error", err)
		}
		return
	}
	written := r.o.cfg.Now()
	if fi, err := os.Lstat(path); err == nil && fi.ModTime().Before(written) {
		written = fi.ModTime()
	}
	rep.parts[local], rep.written[local] = info, written
	r.note(prefix, rep, info, written)
}

// note updates the progress of the rendition that rep makes. Until all are
// identified only files named after a rendition count.
func (r *runState) note(prefix string, rep *rep, info segmentInfo, written time.Time) {
	i := slices.IndexFunc(r.made, func(m made) bool { return m.prefix == prefix })
	if r.made == nil {
		i = slices.IndexFunc(r.progress, func(p RungProgress) bool { return p.Name == prefix })
	}
	if i < 0 {
		return
	}
	seconds := float64(info.duration) / float64(rep.init.track.Timescale)
	r.mu.Lock()
	defer r.mu.Unlock()
	p := &r.progress[i]
	p.Segments++
	p.LastSegmentAt = written
	p.MediaEnd = ticks(info.time+info.duration, rep.init.track.Timescale)
	p.Bitrate = int64(float64(info.size) * 8 / seconds)
	if rep.init.track.Kind == stream.Video {
		p.FPS = float64(info.frames) / seconds
	}
}
