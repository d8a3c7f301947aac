package origin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// leftover is the directory of a run that an earlier process of this worker
// left. What the stream's tail names of it is still public: it is served once the
// tail is known, and from then on the run is like any other that has stopped.
// Until then, and when the tail does not name it, nothing of it is served.
type leftover struct {
	dir      string
	bytes    int64
	removeAt time.Time
}

// leftovers are a stream's that the tail has not named; replaced as a whole.
type leftovers struct {
	runs map[stream.RunID]leftover
	// settled says that the tail was asked: it gains no older run later.
	settled bool
}

// findLeftovers takes stock of what an earlier process left, and removes what no
// playlist can name any more.
func (o *Origin) findLeftovers() error {
	streams, err := os.ReadDir(o.cfg.Dir)
	if err != nil {
		return fmt.Errorf("looking for old runs: %w", err)
	}
	for _, s := range streams {
		if !s.IsDir() {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(o.cfg.Dir, s.Name()))
		if err != nil {
			return fmt.Errorf("looking for old runs: %w", err)
		}
		left := &leftovers{runs: map[stream.RunID]leftover{}}
		for _, e := range entries {
			id, err := stream.ParseRunID(e.Name())
			if err != nil {
				continue
			}
			l := o.weigh(filepath.Join(o.cfg.Dir, s.Name(), e.Name()), e)
			if o.cfg.Now().Before(l.removeAt) {
				left.runs[id] = l
			} else if err := os.RemoveAll(l.dir); err != nil {
				o.log.Warn("can't remove an old run", "error", err)
			}
		}
		if len(left.runs) > 0 {
			st := newState(s.Name(), o.log)
			st.status = absent
			st.view.Store(&view{status: absent})
			st.left.Store(left)
			o.streams.Store(st.id, st)
		}
	}
	return nil
}

// weigh finds out what a run's directory holds, and until when some of it may be
// public: the longest window and Linger after its newest file. What is not a
// directory is to be removed.
func (o *Origin) weigh(dir string, e fs.DirEntry) leftover {
	l := leftover{dir: dir}
	fi, err := e.Info()
	if err != nil || !e.IsDir() {
		return l
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		o.log.Warn("can't read an old run's directory", "error", err)
	}
	newest := time.Time{}
	for _, f := range files {
		if fi, err := f.Info(); err == nil {
			l.bytes += fi.Size()
			if m := fi.ModTime(); m.After(newest) {
				newest = m
			}
		}
	}
	if newest.IsZero() {
		newest = fi.ModTime()
	}
	if now := o.cfg.Now(); newest.After(now) {
		newest = now // GPAC's user can set it to anything
	}
	l.removeAt = newest.Add(stream.MaxWindow + o.cfg.Linger)
	return l
}

// past is what is still public of a leftover.
type past struct {
	run   stream.Run
	files map[string]*file // by path below seg/
}

// examine looks up on disk what the tail lists of the stream's leftovers. GPAC
// may have been killed over any file, so one counts only when it is whole and as
// long as it was when it was listed.
func (st *state) examine(tail stream.Tail) map[stream.RunID]past {
	left := st.left.Load()
	if left == nil || left.settled {
		return nil
	}
	out := map[stream.RunID]past{}
	inits := map[string]*initInfo{} // by path below seg/; nil when not usable
	for _, s := range tail.Segments {
		l, ok := left.runs[s.Run]
		run, named := tail.Runs[s.Run.String()]
		if !ok || !named {
			continue
		}
		for _, t := range run.Tracks {
			part, ok := s.Parts[t.Name]
			if !ok {
				continue
			}
			initKey, key := initKey(s.Run, t.Name), segmentKey(s.Run, t.Name, s.Local)
			init, known := inits[initKey]
			if !known {
				init = st.readPastInit(l.dir, t)
				inits[initKey] = init
			}
			if init == nil {
				continue
			}
			path := filepath.Join(l.dir, fileName(t.Name, s.Local))
			info, err := readSegment(path, init)
			if err != nil || info.size != part.Size || info.time != part.Time {
				st.log.Warn("a listed segment of a former run is not on disk", "segment", key, "size", info.size, "listed", part.Size, "error", err)
				continue
			}
			p, ok := out[s.Run]
			if !ok {
				p = past{run: run, files: map[string]*file{}}
				out[s.Run] = p
			}
			at := s.ProgramDateTime.Add(s.Duration)
			p.files[key] = segmentFile(s.Run, t, s.Local, path, part.Size, at)
			p.files[initKey] = initFile(t, init.bytes, at)
		}
	}
	return out
}

// readPastInit returns the init segment of track t if it still is what it was.
func (st *state) readPastInit(dir string, t stream.Track) *initInfo {
	name := t.Name + "_init.mp4"
	if !initName.MatchString(name) { // leads nowhere else
		return nil
	}
	info, err := readInit(filepath.Join(dir, name))
	is := info.track
	if err != nil || is.Kind != t.Kind || is.Codec != t.Codec || is.Timescale != t.Timescale || is.Width != t.Width ||
		is.Height != t.Height || is.Channels != t.Channels || is.SampleRate != t.SampleRate {
		st.log.Warn("an init segment of a former run is not on disk", "file", filepath.Join(dir, name), "error", err)
		return nil
	}
	return &info
}

// claim makes fetchable what examine found, as runs that have stopped, until the
// longest window is over; a list that names them keeps them for longer. st.mu is
// held.
func (st *state) claim(o *Origin, found map[stream.RunID]past) {
	left := st.left.Load()
	if left == nil || left.settled {
		return
	}
	rest := &leftovers{runs: maps.Clone(left.runs), settled: true}
	for id, p := range found {
		l, ok := rest.runs[id]
		if !ok {
			continue
		}
		delete(rest.runs, id)
		r := &runState{o: o, st: st, start: RunStart{ID: id, Dir: l.dir}, log: st.log.With("run", id.String()), tracks: p.run.Tracks,
			past: true, bytes: l.bytes, signal: make(chan struct{}, 1), stopCh: make(chan struct{}),
			done: make(chan struct{}), fenced: make(chan struct{})}
		close(r.done)
		st.runs[id] = r
		for key, f := range p.files {
			st.files.Store(key, f)
			if f.path != "" {
				st.expiries = append(st.expiries, expiry{at: l.removeAt, key: key, run: r})
			}
		}
		r.log.Info("serving what an earlier process left", "files", len(p.files))
	}
	st.left.Store(rest)
}

// unclaimed tells whether run's directory is here and the tail was not asked yet.
func (st *state) unclaimed(run stream.RunID) bool {
	left := st.left.Load()
	if left == nil || left.settled {
		return false
	}
	_, ok := left.runs[run]
	return ok
}

// findPast looks for a file of a leftover run that no placement here has asked
// the tail for: viewers of the stream's present worker still fetch it. The tail
// is loaded once for each stream that has leftovers, and after a failure not
// again for a while, so that requests can't load the store.
func (o *Origin) findPast(st *state, key string) (*file, bool) {
	name, _, _ := strings.Cut(key, "/")
	run, err := stream.ParseRunID(name)
	if err != nil {
		return nil, false
	}
	if st.unclaimed(run) && !o.claimPast(st, run) {
		return nil, false
	}
	// Claimed just now, or by another request after this one had looked for the file.
	v, ok := st.files.Load(key)
	if !ok {
		return nil, false
	}
	return v.(*file), true
}

// claimPast asks the tail what of st's leftovers is public, unless another request
// has done so by the time that it is this one's turn.
func (o *Origin) claimPast(st *state, run stream.RunID) bool {
	st.asking.Lock()
	defer st.asking.Unlock()
	if !st.unclaimed(run) {
		return true
	}
	if o.storeAway() {
		return false
	}
	ctx, cancel := context.WithTimeout(o.ctx, o.cfg.StoreTimeout)
	defer cancel()
	tail, err := o.cfg.Store.LoadTail(ctx, st.id)
	if err != nil && !errors.Is(err, stream.ErrNotFound) {
		o.storeFailed(err)
		return false
	}
	found := st.examine(tail)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.claim(o, found)
	return true
}

// forget drops what is known of an earlier run with the id of a new one, whose
// directory has replaced it: the store had lost its epochs. st.mu is held.
func (st *state) forget(id stream.RunID) {
	if left := st.left.Load(); left != nil {
		rest := &leftovers{runs: maps.Clone(left.runs), settled: left.settled}
		delete(rest.runs, id)
		st.left.Store(rest)
	}
	if r := st.runs[id]; r == nil || !r.past {
		return
	}
	prefix := id.String() + "/"
	st.files.Range(func(k, _ any) bool {
		if strings.HasPrefix(k.(string), prefix) {
			st.files.Delete(k)
		}
		return true
	})
	st.unexpire(func(key string) bool { return strings.HasPrefix(key, prefix) })
	delete(st.runs, id)
}

// sweepLeftovers removes the leftovers that no playlist can name any more, and
// returns the bytes of the others. st.mu is held.
func (st *state) sweepLeftovers(now time.Time) (bytes int64) {
	left := st.left.Load()
	if left == nil {
		return 0
	}
	rest := &leftovers{runs: map[stream.RunID]leftover{}, settled: left.settled}
	for id, l := range left.runs {
		if now.Before(l.removeAt) {
			rest.runs[id] = l
			bytes += l.bytes
		} else if err := os.RemoveAll(l.dir); err != nil {
			st.log.Warn("can't remove an old run", "error", err)
		}
	}
	switch {
	case len(rest.runs) == 0:
		st.left.Store(nil)
	case len(rest.runs) < len(left.runs):
		st.left.Store(rest)
	}
	return bytes
}
