package kit

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// HLSWatch polls a stream's playlists like a crowd of viewers, downloads every
// segment once, and records every breach of what must always hold:
//
//   - a playlist always answers 200, from the first time on;
//   - a media sequence number names the same URL, map, duration and
//     discontinuity number for ever, and no number is missing or goes down;
//   - what is listed can be fetched, whole, at once;
//   - a number that one rendition lists is listed by the others within
//     skew.
type HLSWatch struct {
	Master Master
	Dir    string // where segments are kept

	*watcher
	tracks map[string]*Track
	inits  map[string]string // URL → file
}

// Track is what was seen of one media playlist.
type Track struct {
	Variant  Variant
	Last     Media // the newest
	Segs     map[uint64]Kept
	FirstSeq uint64
}

// Kept is a segment that was listed and downloaded.
type Kept struct {
	Seg
	Listed time.Time // when we first saw it listed
	File   string
	Init   string
}

// skew is how long one playlist may lag behind another: the router may serve a
// manifest for 0.5 s, and polls come every 0.4 s.
const skew = 3 * time.Second

// WatchHLS starts watching once the master playlist answers, within limit.
func WatchHLS(t T, master string, limit time.Duration) *HLSWatch {
	t.Helper()
	w := &HLSWatch{Dir: t.TempDir(), tracks: map[string]*Track{}, inits: map[string]string{}}
	Eventually(t, limit, "the master playlist "+master, func() error {
		m, err := FetchMaster(master)
		if err != nil {
			return err
		}
		w.Master = m
		return nil
	})
	for _, v := range w.Master.All() {
		w.tracks[v.URL] = &Track{Variant: v, Segs: map[uint64]Kept{}}
	}
	w.watcher = newWatcher()
	w.run(400*time.Millisecond, func() {
		for _, v := range w.Master.All() {
			w.poll(v)
		}
		w.compare()
	})
	t.Cleanup(w.Close)
	return w
}

func (w *HLSWatch) poll(v Variant) {
	m, err := FetchMedia(v.URL)
	if err != nil {
		w.problem("%v", err)
		return
	}
	tr := w.tracks[v.URL]
	if m.Seq < tr.Last.Seq {
		w.problem("%s: EXT-X-MEDIA-SEQUENCE went from %d to %d", v.URL, tr.Last.Seq, m.Seq)
	}
	if n, o := len(m.Segments), len(tr.Last.Segments); n > 0 && o > 0 && m.Segments[n-1].Number < tr.Last.Segments[o-1].Number {
		w.problem("%s: the last number went from %d to %d", v.URL, tr.Last.Segments[o-1].Number, m.Segments[n-1].Number)
	}
	if tr.Last.End && !m.End {
		w.problem("%s: EXT-X-ENDLIST was taken back", v.URL)
	}
	for _, s := range m.Segments {
		if s.Duration > m.Target+0.5 {
			w.problem("%s: number %d lasts %.3f s, over EXT-X-TARGETDURATION %v", v.URL, s.Number, s.Duration, m.Target)
		}
		if old, ok := tr.Segs[s.Number]; ok {
			if old.URL != s.URL || old.Map != s.Map || old.Duration != s.Duration || !old.PDT.Equal(s.PDT) {
				w.problem("%s: number %d changed from %+v to %+v", v.URL, s.Number, old.Seg, s)
			}
			if old.DiscSeq != s.DiscSeq {
				w.problem("%s: number %d had discontinuity number %d and now %d", v.URL, s.Number, old.DiscSeq, s.DiscSeq)
			}
			continue
		}
		k, err := w.keep(s)
		if err != nil {
			w.problem("%s: number %d is listed and can't be fetched: %v", v.URL, s.Number, err)
			continue
		}
		w.mu.Lock()
		if len(tr.Segs) == 0 {
			tr.FirstSeq = s.Number
		}
		tr.Segs[s.Number] = k
		w.mu.Unlock()
	}
	w.mu.Lock()
	tr.Last = m
	w.mu.Unlock()
}

func (w *HLSWatch) keep(s Seg) (Kept, error) {
	k := Kept{Seg: s, Listed: time.Now()}
	if s.Map != "" && w.inits[s.Map] == "" {
		f, err := w.save(s.Map, fmt.Sprintf("init%d.mp4", len(w.inits)))
		if err != nil {
			return k, err
		}
		w.inits[s.Map] = f
	}
	k.Init = w.inits[s.Map]
	f, err := w.save(s.URL, fmt.Sprintf("%d-%d.m4s", s.Number, time.Now().UnixNano()))
	k.File = f
	return k, err
}

func (w *HLSWatch) save(u, name string) (string, error) {
	b, err := FetchOK(u)
	if err != nil {
		return "", err
	}
	f := filepath.Join(w.Dir, name)
	return f, os.WriteFile(f, b, 0o600)
}

// compare checks that no track is behind another by more than skew.
func (w *HLSWatch) compare() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for ua, a := range w.tracks {
		for n, k := range a.Segs {
			if now.Sub(k.Listed) < skew || now.Sub(k.Listed) > skew+5*time.Second {
				continue
			}
			for ub, b := range w.tracks {
				if _, ok := b.Segs[n]; !ok && n >= b.FirstSeq && len(b.Segs) > 0 {
					w.problems = append(w.problems, fmt.Sprintf("number %d is listed by %s and, %v later, not by %s", n, ua, skew, ub))
				}
			}
		}
	}
}

// Problems returns what was found wrong so far, each once.
func (w *HLSWatch) Problems() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	seen := map[string]bool{}
	for _, p := range w.problems {
		if !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	for _, tr := range w.tracks {
		nums := slices.Sorted(maps.Keys(tr.Segs))
		for i := 1; i < len(nums); i++ {
			if nums[i] != nums[i-1]+1 {
				out = append(out, fmt.Sprintf("%s: numbers jump from %d to %d", tr.Variant.URL, nums[i-1], nums[i]))
			}
		}
	}
	return out
}

// ExpectClean fails t for each problem, the first 20 of them.
func (w *HLSWatch) ExpectClean(t T) {
	t.Helper()
	expectNone(t, w.Problems())
}

// Tracks returns copies of what was seen, variants first.
func (w *HLSWatch) Tracks() []Track {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Track
	for _, v := range w.Master.All() {
		tr := w.tracks[v.URL]
		c := *tr
		c.Segs = maps.Clone(tr.Segs)
		out = append(out, c)
	}
	return out
}

// Newest returns the highest number that every track lists, 0 for none.
func (w *HLSWatch) Newest() uint64 {
	low := uint64(0)
	for i, tr := range w.Tracks() {
		high := uint64(0)
		for n := range tr.Segs {
			high = max(high, n)
		}
		if i == 0 || high < low {
			low = high
		}
	}
	return low
}

// WaitSegments waits until every track has listed n numbers more than now.
func (w *HLSWatch) WaitSegments(t T, n int, limit time.Duration) {
	t.Helper()
	start := w.count()
	Eventually(t, limit, fmt.Sprintf("%d more segments on every rendition", n), func() error {
		if got := w.count() - start; got < n {
			return fmt.Errorf("%d segments; problems so far: %v", got, w.Problems())
		}
		return nil
	})
}

func (w *HLSWatch) count() int {
	least := -1
	for _, tr := range w.Tracks() {
		if least < 0 || len(tr.Segs) < least {
			least = len(tr.Segs)
		}
	}
	return least
}

// Discontinuities returns the numbers before which the first variant has an
// EXT-X-DISCONTINUITY.
func (w *HLSWatch) Discontinuities() []uint64 {
	tr := w.Tracks()[0]
	var out []uint64
	for _, n := range slices.Sorted(maps.Keys(tr.Segs)) {
		if tr.Segs[n].Disc {
			out = append(out, n)
		}
	}
	return out
}

// Ended reports whether every playlist carries EXT-X-ENDLIST.
func (w *HLSWatch) Ended() bool {
	for _, tr := range w.Tracks() {
		if !tr.Last.End {
			return false
		}
	}
	return true
}

// WaitEnded waits for EXT-X-ENDLIST on every playlist.
func (w *HLSWatch) WaitEnded(t T, limit time.Duration) {
	t.Helper()
	Eventually(t, limit, "EXT-X-ENDLIST on every playlist", func() error {
		if !w.Ended() {
			return fmt.Errorf("not ended")
		}
		return nil
	})
}
