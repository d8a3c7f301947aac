package router_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/router"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// The store's state is emptied, then an older copy is restored, in which the stream
// is not placed, then one in which it was placed elsewhere: the playlists go on at
// the origin that has the stream, and the next placement is followed.
func TestStateIsLost(t *testing.T) {
	t.Parallel() // it waits most of its time
	w := newWorld(t, router.Config{NoPrefetch: true})
	o1, o2 := w.origin("w1"), w.origin("w2")
	w.routes.put("s", live("w1", 3))
	o1.playlist(index, "e3r1", 10, "")
	w.is(index, http.StatusOK, "10.m4s")
	last := 10
	goesOn := func(what string) {
		t.Helper()
		w.routes.changes <- "s"
		for until := time.Now().Add(2 * time.Second); time.Now().Before(until); {
			last++
			o1.playlist(index, "e3r1", last, "")
			eventually(t, what, func() error {
				a := w.get(index)
				if a.code != http.StatusOK {
					t.Fatalf("%s: %d %s", what, a.code, a.body)
				}
				if !strings.Contains(a.body, fmt.Sprintf("/%d.m4s", last)) {
					return fmt.Errorf("number %d is not there", last)
				}
				return nil
			})
		}
	}
	w.routes.lose()
	goesOn("all is lost")
	w.is("/live/unknown/720p/index.m3u8", http.StatusNotFound, "no such stream")
	w.routes.put("s", stream.Route{Window: 60, HoldBack: 12})
	goesOn("it is not placed")
	w.routes.put("s", live("w2", 2))
	goesOn("it was elsewhere")
	w.routes.removedAt("s", time.Now().Add(-time.Hour))
	goesOn("it was deleted, before it was created again")
	if n := o2.count(index); n != 0 {
		t.Errorf("the former origin was asked %d times", n)
	}
	next := live("w2", 4)
	next.Origins[3] = "w1"
	o2.playlist(index, "e4r1", last+1, "")
	w.routes.put("s", next)
	w.routes.changes <- "s"
	w.is(index, http.StatusOK, "e4r1")
	w.routes.remove("s")
	w.routes.changes <- "s"
	w.is(index, http.StatusNotFound, "no such stream")
}

// A stream was lost, and its origin gives nothing any more: the last manifest is served
// for the window, as that of a stream that has ended, and not for ever.
func TestLostAndOver(t *testing.T) {
	t.Parallel() // it waits most of its time
	w := newWorld(t, router.Config{NoPrefetch: true})
	o := w.origin("w1")
	route := live("w1", 3)
	route.Window = 1 // less than there may be: the least is taken
	w.routes.put("s", route)
	o.playlist(index, "e3r1", 10, "")
	w.is(index, http.StatusOK, "10.m4s")
	w.routes.lose()
	w.routes.changes <- "s"
	start := time.Now()
	o.handle(index, http.NotFound)
	testkit.Eventually(t, stream.MinWindow+deadline, "no manifest any more", func() error {
		if a := w.get(index); a.code == http.StatusOK {
			return fmt.Errorf("%d", a.code)
		}
		return nil
	})
	if took := time.Since(start); took < stream.MinWindow-5*time.Second {
		t.Errorf("not served after %v", took)
	}
}
