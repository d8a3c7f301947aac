package origin

import (
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// Redis has lost the tail, or some of it, and the stream is placed again. At the
// origin that listed it the playlists go on with their numbers, whoever told it of
// the new epoch; when another placement was in between, or the window has passed,
// they begin again past any number that can have been used.
func TestTheNextPlacementIsHereToo(t *testing.T) {
	m := makeMedia(t, 4)
	lost := func(s *fakeStore) { s.tails = map[string]*stream.Tail{} }
	for name, c := range map[string]struct {
		lose   func(*fakeStore)
		fences int
		epoch  uint64
		after  time.Duration
		goesOn bool
	}{
		"nothing is lost":        {func(*fakeStore) {}, 1, 2, 0, true},
		"the tail is lost":       {lost, 1, 2, 0, true},
		"and a router told, too": {lost, 2, 2, 0, true},
		"some of it is lost": {func(s *fakeStore) {
			s.tails["demo"].Segments, s.tails["demo"].Last = s.tails["demo"].Segments[:1], 1
		}, 1, 2, 0, true},
		"nobody told":                   {lost, 0, 2, 0, true},
		"it was elsewhere in between":   {lost, 1, 3, 0, false},
		"what was listed is not there":  {lost, 1, 2, 2 * time.Minute, false},
		"nothing is lost, but the time": {func(*fakeStore) {}, 1, 2, 2 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			clock := &clock{at: time.Now()}
			store := newFakeStore()
			w := newWorld(t, m, store, clock)
			start := clock.Now()
			r := w.start(placement("demo", 1, start), 1)
			r.inits(all...)
			r.segment(1, all...)
			r.segment(2, all...)
			w.eventually("/live/demo/180p/index.m3u8", 200, has("/2.m4s"))
			store.set(func() {
				c.lose(store)
				store.fenced["demo"] = c.epoch
			})
			if c.fences > 0 {
				w.origin.Fence("demo", c.epoch)
				<-r.Fenced()
				st := w.origin.lookup("demo")
				st.mu.Lock()   // the fence has it until it is over
				st.mu.Unlock() //nolint:staticcheck // that is all
			}
			r.Stopped()
			<-r.Done()
			clock.Add(c.after)
			r = w.start(placement("demo", c.epoch, start), 1)
			if c.fences > 1 {
				w.origin.Fence("demo", c.epoch)
			}
			r.inits(all...)
			r.segment(1, all...)
			next := "e2r1/180p/1.m4s"
			if c.epoch == 3 {
				next = "e3r1/180p/1.m4s"
			}
			body := w.eventually("/live/demo/180p/index.m3u8", 200, has(next))
			on := has("#EXT-X-MEDIA-SEQUENCE:1\n", "e1r1/180p/2.m4s\n#EXT-X-DISCONTINUITY\n")(body)
			if on != c.goesOn {
				t.Errorf("it goes on: %v, want %v:\n%s", on, c.goesOn, body)
			}
			if c.goesOn {
				if code, _ := w.get("/live/demo/seg/e1r1/180p/1.m4s"); code != 200 {
					t.Errorf("a listed segment: %d", code)
				}
			}
			tail, err := store.LoadTail(t.Context(), "demo")
			if err != nil || c.goesOn && tail.Last != 3 {
				t.Errorf("the tail is at %d: %v", tail.Last, err)
			}
		})
	}
}
