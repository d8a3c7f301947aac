package router_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
	"github.com/dionysia-dev/dionysia/services/discovery"
	"github.com/dionysia-dev/dionysia/services/router"
)

// says makes o name itself in every answer, as id.
func (o *origin) says(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.named = id
}

// TestAddressTakenOver moves an origin while DNS's answer is good for half a minute
// more, and has another one take its address over.
func TestAddressTakenOver(t *testing.T) {
	for _, code := range []int{http.StatusNotFound, http.StatusGone} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			w := &world{t: t, consul: testkit.StartConsul(t, 30*time.Second), routes: newRoutes()}
			w.start(router.Config{NoPrefetch: true})
			o := w.origin("w1")
			o.says("w1")
			w.routes.put("s", live("w1", 1))
			o.playlist(index, "e1r1", 10, "")
			o.bytes(segment, []byte("one"))
			w.is(index, http.StatusOK, "10.m4s")

			moved := newOrigin(t, "w1")
			moved.says("w1")
			moved.playlist(index, "e1r1", 11, "")
			moved.bytes(segment, []byte("one"))
			if err := o.reg.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			moved.register(w.consul)
			w.inDNS(moved)
			// From now on another origin answers at the former address.
			o.says("w2")
			o.status(index, code)
			o.status(segment, code)
			start := time.Now()
			w.is(index, http.StatusOK, "11.m4s")
			if a := w.get(segment); a.code != http.StatusOK || a.body != "one" {
				t.Errorf("a segment of the one that moved: %d %s", a.code, a.body)
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("found after %v, when DNS was asked anyway", took)
			}
		})
	}
}

// TestAddressTakenOverForGood has an origin vanish: who took its address over says
// nothing about what it had.
func TestAddressTakenOverForGood(t *testing.T) {
	w := newWorld(t, router.Config{NoPrefetch: true})
	o := w.origin("w1")
	o.says("w1")
	w.routes.put("s", live("w1", 1))
	o.playlist(index, "e1r1", 10, "")
	w.is(index, http.StatusOK, "10.m4s")
	if err := o.reg.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not in DNS", func() error {
		_, err := discovery.NewResolver(discovery.ResolverOptions{Addr: w.consul.DNSAddr}).Lookup(t.Context(), "w1")
		if err == nil {
			return fmt.Errorf("still")
		}
		return nil
	})
	o.says("w2")
	o.status(segment, http.StatusNotFound)
	o.status(index, http.StatusGone)
	before := o.count(index)
	eventually(t, "asked for again", func() error {
		if a := w.get(index); a.code != http.StatusOK {
			t.Fatalf("the playlist: %d", a.code)
		}
		if o.count(index) == before {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	if a := w.get(segment); a.code != http.StatusServiceUnavailable {
		t.Errorf("its segment, which may come back: %d", a.code)
	}
	if n := metric(w.get("/metrics").body, `dionysia_router_upstream_requests_total{kind="hls",outcome="elsewhere"}`); n < 1 {
		t.Errorf("counted %v times", n)
	}
	// What the other one has is right whoever gives it.
	o.handle(segment, func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "one") })
	w.is(segment, http.StatusOK, "one")
}
