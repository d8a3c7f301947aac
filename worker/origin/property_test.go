package origin

import (
	"bytes"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Eyevinn/dash-mpd/mpd"
	"github.com/Eyevinn/hls-m3u8/m3u8"
	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// model drives one stream over several origins that share a store, and checks
// each playlist that becomes public against all earlier ones.
type model struct {
	t       *rapid.T
	clock   *clock
	store   *fakeStore
	dir     string
	origins []*Origin
	epoch   uint64
	run     uint32
	bcast   int
	began   time.Time

	current *runState
	local   uint64
	owner   *Origin

	uris    map[uint64]string // what each number named first, in one variant
	highest uint64
	seq     uint64 // EXT-X-MEDIA-SEQUENCE
	disc    uint64
	tags    map[uint64]bool // numbers that carried a discontinuity
	target  uint
	blind   bool
	names   []string // the variants
}

func (m *model) origin(i int) *Origin {
	if m.origins[i] == nil {
		o, err := New(Config{Dir: filepath.Join(m.dir, fmt.Sprint(i)), Store: m.store, Now: m.clock.Now,
			StoreTimeout: time.Millisecond, Poll: time.Hour})
		if err != nil {
			m.t.Fatal(err)
		}
		m.origins[i] = o
	}
	return m.origins[i]
}

func (m *model) place() stream.Placement {
	p := placement("demo", m.epoch, m.began)
	p.Broadcast = fmt.Sprintf("b%d", m.bcast)
	return p
}

// start begins a run on o without files: the model lists by itself.
func (m *model) start(o *Origin) {
	m.run++
	st := o.lookup("demo")
	if st == nil {
		st = newState("demo", o.log)
		o.streams.Store("demo", st)
	}
	ladder := rapid.SampledFrom([][]stream.Track{
		{propVideo("hi", 640, 360), propVideo("lo", 320, 180), propAudio("aac")},
		{propVideo("lo", 320, 180), propAudio("aac")},
	}).Draw(m.t, "tracks")
	r := &runState{o: o, st: st, start: RunStart{Placement: m.place(), ID: stream.RunID{Epoch: m.epoch, Run: m.run}, Dir: m.dir},
		started: m.clock.Now(), tracks: ladder, log: o.log}
	if rapid.Bool().Draw(m.t, "degraded") {
		r.start.Full = []stream.OutVideo{{Name: "top", Codec: "h264", Width: 1280, Height: 720}, {Name: "hi", Codec: "h264", Width: 640, Height: 360},
			{Name: "lo", Codec: "h264", Width: 320, Height: 180}}
	}
	for range ladder {
		r.made = append(r.made, made{init: &initInfo{}})
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.fencedBy.Load() <= m.epoch {
		st.fencedBy.Store(0)
	}
	if err := o.adopt(st, m.place(), r.start.ID); err != nil {
		m.t.Fatal(err)
	}
	st.configure(m.place())
	if err := st.publish(m.clock.Now()); err != nil {
		m.t.Fatal(err)
	}
	m.current, m.local, m.owner = r, 0, o
}

func propVideo(name string, w, h int) stream.Track {
	return stream.Track{Name: name, Kind: stream.Video, Codec: "avc1.64001e", Timescale: 90000, Bandwidth: 500_000,
		Width: w, Height: h, FPS: stream.Rate{Num: 30, Den: 1}}
}

func propAudio(name string) stream.Track {
	return stream.Track{Name: name, Kind: stream.Audio, Codec: "mp4a.40.2", Timescale: 48000, Bandwidth: 64_000, Channels: 2, SampleRate: 48000}
}

func (m *model) list(lengths *rapid.Generator[uint64]) {
	m.local++
	d := lengths.Draw(m.t, "ms")
	m.clock.Add(time.Duration(d) * time.Millisecond)
	var infos []segmentInfo
	for _, t := range m.current.tracks {
		begin := 1000 + (m.local-1)*2000
		infos = append(infos, segmentInfo{time: scale(begin, 1000, t.Timescale), duration: scale(d, 1000, t.Timescale), frames: 60, size: int64(d * 60)})
	}
	if err := m.owner.list(m.current.st, m.current, m.local, infos, m.clock.Now()); err != nil {
		m.t.Fatalf("listing: %v", err)
	}
	m.check()
}

func (m *model) check() {
	v := m.current.st.view.Load()
	var first *m3u8.MediaPlaylist
	var names []string
	before := m.highest
	for name, b := range v.manifests {
		if !strings.HasSuffix(name, "/index.m3u8") {
			continue
		}
		names = append(names, name)
		p, _, err := m3u8.DecodeFrom(bytes.NewReader(b.data), true)
		if err != nil {
			m.t.Fatalf("%s: %v\n%s", name, err, b.data)
		}
		list := p.(*m3u8.MediaPlaylist)
		if first == nil {
			first = list
			m.checkHistory(list, string(b.data))
		}
		if list.SeqNo != first.SeqNo || list.Count() != first.Count() || list.DiscontinuitySeq != first.DiscontinuitySeq {
			m.t.Fatalf("%s differs from its siblings in numbers", name)
		}
	}
	if first == nil {
		m.t.Fatal("no playlist")
	}
	slices.Sort(names)
	if first.SeqNo <= before && !slices.Equal(names, m.names) {
		m.t.Fatalf("a playlist goes on, and its siblings are %v, were %v", names, m.names)
	}
	m.names = names
	m.checkMPD(v.manifests["manifest.mpd"].data)
}

func (m *model) checkHistory(list *m3u8.MediaPlaylist, text string) {
	if m.target != 0 && list.TargetDuration != m.target {
		m.t.Fatalf("the target duration changed from %d to %d", m.target, list.TargetDuration)
	}
	m.target = list.TargetDuration
	if list.SeqNo < m.seq {
		m.t.Fatalf("the media sequence went down from %d to %d", m.seq, list.SeqNo)
	}
	if list.DiscontinuitySeq < m.disc {
		m.t.Fatalf("the discontinuity sequence went down from %d to %d\n%s", m.disc, list.DiscontinuitySeq, text)
	}
	// Where the lists overlap, the sequence rises by exactly the tags that left.
	if m.seq != 0 && list.SeqNo <= m.highest {
		left := uint64(0)
		for n := range m.tags {
			if n >= m.seq && n < list.SeqNo {
				left++
			}
		}
		if list.DiscontinuitySeq != m.disc+left {
			m.t.Fatalf("the discontinuity sequence is %d, was %d, and %d tags left\n%s", list.DiscontinuitySeq, m.disc, left, text)
		}
	}
	m.seq, m.disc = list.SeqNo, list.DiscontinuitySeq
	var total float64
	for i, s := range list.GetAllSegments() {
		n := list.SeqNo + uint64(i)
		// Only the run and local number: variants differ in the rendition.
		parts := strings.Split(s.URI, "/")
		key := parts[2] + "/" + parts[4]
		if was, ok := m.uris[n]; ok && was != key {
			m.t.Fatalf("number %d named %s and now %s", n, was, key)
		}
		if was, seen := m.tags[n]; n <= m.highest && s.Discontinuity != (was && seen) {
			m.t.Fatalf("the discontinuity at %d changed", n)
		}
		m.uris[n] = key
		if s.Discontinuity {
			m.tags[n] = true
		}
		m.highest = max(m.highest, n)
		total += s.Duration
	}
	if newest := list.GetAllSegments(); total-newest[0].Duration >= 31 {
		m.t.Fatalf("a window of 30 s lists %.1f s", total)
	}
}

func (m *model) checkMPD(b []byte) {
	doc, err := mpd.MPDFromBytes(b)
	if err != nil {
		m.t.Fatalf("MPD: %v", err)
	}
	if got, _ := time.Parse(time.RFC3339, string(doc.AvailabilityStartTime)); !got.Equal(m.began.Truncate(time.Millisecond)) {
		m.t.Fatalf("availabilityStartTime %v, the broadcast began %v", got, m.began)
	}
	end := -1.0
	ids := map[string]bool{}
	for _, p := range doc.Periods {
		if ids[p.Id] {
			m.t.Fatalf("period %s twice", p.Id)
		}
		ids[p.Id] = true
		start := time.Duration(*p.Start).Seconds()
		if end >= 0 && math.Abs(start-end) > 0.002 {
			m.t.Fatalf("period %s starts at %.3f, its predecessor ends at %.3f\n%s", p.Id, start, end, b)
		}
		var pto float64
		for i, set := range p.AdaptationSets {
			st := set.SegmentTemplate
			seconds := float64(*st.PresentationTimeOffset) / float64(*st.Timescale)
			if i > 0 && math.Abs(seconds-pto) > 0.0001 {
				m.t.Fatalf("offsets of %.4f and %.4f s in one period", pto, seconds)
			}
			pto = seconds
			if set.ContentType != "video" {
				continue
			}
			var at uint64
			for k, s := range st.SegmentTimeline.S {
				if s.T != nil {
					at = *s.T
				} else if k == 0 {
					m.t.Fatal("a timeline without a start")
				}
				at += s.D * uint64(s.R+1)
			}
			end = start + float64(at)/float64(*st.Timescale) - pto
		}
	}
}

func TestPlaylistsOverRandomRunsHold(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{t: rt, clock: &clock{at: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}, store: newFakeStore(),
			dir: dir, origins: make([]*Origin, 3), epoch: 1, bcast: 1, uris: map[uint64]string{}, tags: map[uint64]bool{}}
		defer func() {
			for _, o := range m.origins {
				if o != nil {
					o.Close()
				}
			}
		}()
		m.began = m.clock.Now()
		m.clock.Add(4 * time.Second)
		m.start(m.origin(0))
		exact := rapid.Just(uint64(2000))
		last := rapid.Uint64Range(400, 2000)
		for range rapid.IntRange(1, 12).Draw(rt, "runs") {
			for range rapid.IntRange(0, 25).Draw(rt, "segments") {
				m.list(exact)
			}
			m.list(last)
			m.clock.Add(time.Duration(rapid.IntRange(0, 12_000).Draw(rt, "outage ms")) * time.Millisecond)
			switch rapid.SampledFrom([]string{"restart", "failover", "failover", "killed", "tail lost", "redis away", "broadcast"}).Draw(rt, "event") {
			case "restart":
				m.start(m.owner)
			case "failover":
				m.failover(nil)
			case "killed":
				// The worker starts again, and its successor may be itself.
				for i, o := range m.origins {
					if o == m.owner {
						m.origins[i] = nil
					}
				}
				m.owner.Close()
				m.failover(nil)
			case "tail lost":
				// What state's bound leaves of a tail that live has lost.
				m.failover(func() { m.store.tails = map[string]*stream.Tail{"demo": {Last: m.highest}} })
			case "redis away":
				m.failover(func() { m.store.away = true })
				m.store.set(func() { m.store.away = false })
				m.blind = true
			case "broadcast":
				m.bcast++
				m.began, m.target = m.clock.Now(), 0
				m.clock.Add(3 * time.Second)
				m.failover(nil)
			}
			m.list(exact)
		}
	})
}

// failover moves the stream to another origin, or the same one, at epoch+1.
func (m *model) failover(accident func()) {
	m.epoch++
	m.run = 0
	st := m.current.st
	st.mu.Lock()
	unchecked := len(st.backlog) > 0
	st.mu.Unlock()
	if m.blind || unchecked {
		// The last placement listed what Redis does not know. Before its
		// successor starts it was found dead, and Redis came back.
		m.clock.Add(stream.DefaultHoldBack)
		m.blind = false
	}
	m.store.set(func() {
		m.store.fenced["demo"] = m.epoch
		if accident != nil {
			accident()
		}
	})
	m.start(m.origin(rapid.IntRange(0, len(m.origins)-1).Draw(m.t, "origin")))
}
