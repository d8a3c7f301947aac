package origin

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/dionysia-dev/dionysia/worker/origin/manifest"
)

// status is where a stream stands at this origin.
//
//	waiting → live → ended → gone
//	   └────────┴──────┴──→ fenced (state.fencedBy) → gone
//
// A stream of which only an earlier process's runs are here is absent until it is
// placed here.
// A new run of a later broadcast takes it back to waiting.
type status int

const (
	waiting status = iota // placed here, nothing listed yet
	live
	ended  // the playlists are closed
	gone   // the window after the end has passed
	absent // placed elsewhere or nowhere: only leftovers are here
)

// view is what viewers get; it is replaced as a whole and never changed.
type view struct {
	status    status
	epoch     uint64
	version   string // <epoch>.<run>.<newest number>
	modified  time.Time
	manifests map[string]*body // by path below /live/<stream>/
}

// body is one rendered manifest.
type body struct {
	data        []byte
	etag        string
	contentType string
}

// file is one object that may be fetched: an init in memory, or a segment on disk.
type file struct {
	data        []byte
	path        string
	size        int64
	etag        string
	contentType string
	modified    time.Time
}

// expiry removes a file from view and from disk at a time.
type expiry struct {
	at  time.Time
	key string
	run *runState
}

// state is one stream at this origin. The manifests are served from view and
// files without the lock.
type state struct {
	id  string
	log hclog.Logger

	view     atomic.Pointer[view]
	files    sync.Map                  // path below seg/ → *file
	fencedBy atomic.Uint64             // the highest foreign epoch above ours; 0 when not fenced
	left     atomic.Pointer[leftovers] // nil when there are none; stored with mu held
	offers   *offers
	asking   sync.Mutex // held, before mu, while a request asks the tail for leftovers

	mu        sync.Mutex
	placement stream.Placement // of the newest run
	status    status
	pres      manifest.Presentation
	next      uint64 // the number that the next segment gets
	discSeq   uint64 // discontinuities so far
	joins     bool   // the next run has a predecessor in this broadcast
	adopted   uint64 // the epoch whose tail was loaded
	former    former // what was listed here when a higher epoch fenced it
	runs      map[stream.RunID]*runState
	expiries  []expiry
	backlog   []entry
	touched   time.Time
	removeAt  time.Time // of an ended stream
}

func newState(id string, log hclog.Logger) *state {
	st := &state{id: id, log: log.With("stream", id), runs: map[stream.RunID]*runState{}, offers: newOffers()}
	st.view.Store(&view{})
	return st
}

func (st *state) isFenced() bool { return st.fencedBy.Load() > st.view.Load().epoch }

// configure takes the settings that a placement carries.
func (st *state) configure(p stream.Placement) {
	st.placement = p
	st.pres.Segment = p.Profile.Segment.Duration()
	if st.pres.Segment <= 0 {
		st.pres.Segment = 2 * time.Second
	}
	st.pres.Window = orDefault(p.Window.Duration(), stream.DefaultWindow)
	st.pres.HoldBack = orDefault(p.HoldBack.Duration(), stream.DefaultHoldBack)
	st.pres.Start = p.BroadcastStart
	if st.pres.Target == 0 {
		st.pres.Target = manifest.TargetDuration(st.pres.Segment, st.pres.HoldBack)
	}
	if st.pres.Runs == nil {
		st.pres.Runs = map[stream.RunID]stream.Run{}
	}
}

func orDefault(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}

// publish renders all manifests and makes them public in one step.
func (st *state) publish(now time.Time) error {
	st.touched = now
	v := &view{status: st.status, epoch: st.placement.Epoch, modified: now, manifests: map[string]*body{}}
	if n := len(st.pres.Segments); n > 0 && st.status != gone {
		newest := st.pres.Segments[n-1]
		v.version = fmt.Sprintf("%d.%d.%d", newest.Run.Epoch, newest.Run.Run, newest.Number)
		st.pres.Published, st.pres.Ended = now, st.status == ended
		master, err := st.pres.Master()
		if err != nil {
			return fmt.Errorf("composing the master playlist: %w", err)
		}
		mpd, err := st.pres.MPD()
		if err != nil {
			return fmt.Errorf("composing the MPD: %w", err)
		}
		v.manifests["master.m3u8"] = newBody(master, typeHLS)
		v.manifests["manifest.mpd"] = newBody(mpd, typeDASH)
		for _, t := range st.pres.Variants {
			m, err := st.pres.Media(t.Name)
			if err != nil {
				return fmt.Errorf("composing a media playlist: %w", err)
			}
			v.manifests[t.Name+"/index.m3u8"] = newBody(m, typeHLS)
		}
	}
	st.view.Store(v)
	st.offers.wake()
	return nil
}

func newBody(b []byte, contentType string) *body {
	return &body{data: b, etag: etag(b), contentType: contentType}
}

func etag(b []byte) string {
	h := fnv.New64a()
	h.Write(b)
	return fmt.Sprintf(`"%016x-%x"`, h.Sum64(), len(b))
}

func initKey(run stream.RunID, track string) string { return fmt.Sprintf("%s/%s/init.mp4", run, track) }

func segmentKey(run stream.RunID, track string, local uint64) string {
	return fmt.Sprintf("%s/%s/%d.m4s", run, track, local)
}

// remove deletes from view and disk what has expired by now.
func (st *state) remove(now time.Time) {
	keep := st.expiries[:0]
	for _, e := range st.expiries {
		if now.Before(e.at) {
			keep = append(keep, e)
			continue
		}
		if v, ok := st.files.LoadAndDelete(e.key); ok {
			f := v.(*file)
			if err := os.Remove(f.path); err != nil && !errors.Is(err, os.ErrNotExist) {
				st.log.Warn("can't remove a segment", "error", err)
			}
			if e.run != nil {
				e.run.mu.Lock()
				e.run.bytes = max(0, e.run.bytes-f.size)
				e.run.mu.Unlock()
			}
		}
	}
	clear(st.expiries[len(keep):])
	st.expiries = keep
}

// unexpire takes back the removal of what is listed again, or replaced.
func (st *state) unexpire(which func(key string) bool) {
	st.expiries = slices.DeleteFunc(st.expiries, func(e expiry) bool { return which(e.key) })
}

func segmentFile(run stream.RunID, t stream.Track, local uint64, path string, size int64, at time.Time) *file {
	return &file{path: path, size: size, etag: fmt.Sprintf(`"%s-%s-%d"`, run, t.Name, local), contentType: mediaType(t.Kind), modified: at}
}

func initFile(t stream.Track, b []byte, at time.Time) *file {
	return &file{data: b, etag: etag(b), contentType: mediaType(t.Kind), modified: at}
}
