package router

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever enters, is heard of, leaves and gives up: no more are in flight than
// may be, nobody waits who could have a place, and nothing is left behind.
func TestLaneProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLane("test", 3, 2)
		type waiter struct {
			origin string
			cancel func()
			got    chan *place
		}
		var flying []*place
		var waiting []*waiter
		origin := func() string { return fmt.Sprint("w", rapid.IntRange(1, 3).Draw(t, "origin")) }
		// settle collects those who were given a place.
		settle := func() {
			l.mu.Lock()
			line := len(l.line)
			l.mu.Unlock()
			for n := 0; len(waiting) > line; n++ {
				i := n % len(waiting)
				select {
				case p := <-waiting[i].got:
					waiting[i].cancel()
					waiting = append(waiting[:i], waiting[i+1:]...)
					if p != nil {
						flying = append(flying, p)
					}
				case <-time.After(time.Millisecond):
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"enter": func(t *rapid.T) {
				ctx, cancel := context.WithCancel(context.Background())
				w := &waiter{origin: origin(), cancel: cancel, got: make(chan *place, 1)}
				_, before := l.counts()
				go func() {
					p, err := l.enter(ctx, w.origin)
					if err != nil && !errors.Is(err, errBusy) && !errors.Is(err, errSilent) {
						panic(err)
					}
					w.got <- p
				}()
				for {
					if _, now := l.counts(); now > before {
						waiting = append(waiting, w)
						return
					}
					select {
					case p := <-w.got:
						cancel()
						flying = append(flying, p)
						return
					case <-time.After(time.Millisecond):
					}
				}
			},
			"hear": func(t *rapid.T) {
				if len(flying) == 0 {
					t.Skip()
				}
				flying[rapid.IntRange(0, len(flying)-1).Draw(t, "i")].hears()
			},
			"leave": func(t *rapid.T) {
				if len(flying) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(flying)-1).Draw(t, "i")
				p := flying[i]
				flying = append(flying[:i], flying[i+1:]...)
				p.leave(rapid.Bool().Draw(t, "answered"))
				p.leave(true)
				p.hears()
				settle()
			},
			"give up": func(t *rapid.T) {
				if len(waiting) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(waiting)-1).Draw(t, "i")
				waiting[i].cancel()
				if p := <-waiting[i].got; p != nil {
					flying = append(flying, p)
				}
				waiting = append(waiting[:i], waiting[i+1:]...)
			},
			"": func(t *rapid.T) {
				l.mu.Lock()
				defer l.mu.Unlock()
				used := map[string]int{}
				for _, p := range flying {
					used[p.origin]++
				}
				if l.used != len(flying) || l.used > l.total || len(l.line) != len(waiting) {
					t.Fatalf("%d in flight of %d, %d wait of %d", l.used, len(flying), len(l.line), len(waiting))
				}
				for id, of := range l.origins {
					if of.used != used[id] || of.used > l.each || of.silent < 0 || of.silent > of.used || of.used+of.waiting == 0 {
						t.Fatalf("%s: %+v, %d in flight", id, *of, used[id])
					}
				}
				for _, w := range l.line {
					if l.fits(w.of) {
						t.Fatal("one waits while there is a place for it")
					}
				}
			},
		})
		for _, w := range waiting {
			w.cancel()
			if p := <-w.got; p != nil {
				flying = append(flying, p)
			}
		}
		for _, p := range flying {
			p.leave(false)
		}
		if used, line := l.counts(); used+line+len(l.origins) > 0 {
			t.Fatalf("left behind: %d, %d, %v", used, line, l.origins)
		}
	})
}

// TestLaneTellsWhy shows when an origin counts as silent: it has had all of its
// places, and answered none, as long as one waited.
func TestLaneTellsWhy(t *testing.T) {
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	enter := func(l *lane, origin string, want error) *place {
		t.Helper()
		p, err := l.enter(soon(), origin)
		if !errors.Is(err, want) {
			t.Fatalf("a fetch from %s: %v, want %v", origin, err, want)
		}
		return p
	}
	l := newLane("test", 3, 2)
	a1, a2 := enter(l, "a", nil), enter(l, "a", nil)
	enter(l, "a", errSilent)
	b := enter(l, "b", nil)
	enter(l, "b", errBusy) // the lane is full: that is not b's fault
	b.leave(false)
	a1.hears()
	enter(l, "a", errBusy)
	a1.leave(true)
	a3 := enter(l, "a", nil)
	enter(l, "a", errSilent)
	// It answers one, and that place is taken at once.
	go func() {
		for _, waiting := l.counts(); waiting < 2; _, waiting = l.counts() {
			time.Sleep(time.Millisecond)
		}
		a3.leave(true)
	}()
	first, second := make(chan error, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	for _, got := range []chan error{first, second} {
		go func() { _, err := l.enter(ctx, "a"); got <- err }()
	}
	select { // one of them has it
	case err := <-first:
		if err != nil {
			t.Fatal(err)
		}
		first = second
	case err := <-second:
		if err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-first; !errors.Is(err, errBusy) {
		t.Errorf("while others are answered: %v", err)
	}
	a2.leave(false)
}

// TestGiveUp ends fills that nobody reads, and no others.
func TestGiveUp(t *testing.T) {
	c := newCache(100)
	now := time.Unix(1000, 0)
	ended := map[string]bool{}
	l := newLane("test", 9, 9)
	fill := func(path string, since time.Time) *object {
		o, _, _ := c.open(path, nil, now)
		p, err := l.enter(t.Context(), "w1")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.reserve(o, 10); err != nil {
			t.Fatal(err)
		}
		c.begins(o, p, since, func() { ended[path] = true })
		return o
	}
	unread, read, young := fill("unread", now), fill("read", now), fill("young", now.Add(time.Second))
	c.release(unread)
	c.release(young)
	c.giveUp(now)
	if len(ended) != 1 || !ended["unread"] {
		t.Fatalf("ended: %v", ended)
	}
	if used, _ := l.counts(); used != 2 {
		t.Errorf("%d places taken: what a viewer reads needs none, what ends leaves when it has", used)
	}
	// Who asks for it meanwhile begins anew, and that is not lost with the first.
	again, started, err := c.open("unread", nil, now)
	if err != nil || !started {
		t.Fatalf("asked for again: started %v, %v", started, err)
	}
	c.failed(unread, context.Canceled, time.Time{})
	unread.place.leave(false)
	if o, started, _ := c.open("unread", nil, now); o != again || started {
		t.Error("the second fill is lost with the first")
	}
	for _, o := range []*object{read, young} {
		c.filled(o)
	}
	if bytes, n := c.size(); bytes != 20 || n != 2 {
		t.Errorf("%d bytes of %d", bytes, n)
	}
}
