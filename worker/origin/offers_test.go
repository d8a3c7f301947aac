package origin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

// next asks what comes next, as the router by.
func (w *world) next(by, after string) answer {
	w.t.Helper()
	return w.do(http.MethodGet, "/live/demo/next?by="+by+"&after="+after)
}

// following waits for an answer that offers local number n, and returns it.
func (w *world) following(by string, n int) answer {
	w.t.Helper()
	var a answer
	after := ""
	testkit.Eventually(w.t, wait, fmt.Sprintf("an offer of %d", n), func() error {
		a = w.next(by, after)
		if a.code != http.StatusOK && a.code != http.StatusNoContent {
			return fmt.Errorf("%d %s", a.code, a.body)
		}
		after = a.header.Get(HeaderOffer)
		if !strings.Contains(string(a.body), fmt.Sprintf("/%d.m4s", n)) {
			return fmt.Errorf("offered %q: %s", after, a.body)
		}
		return nil
	})
	return a
}

func (w *world) appended(n uint64) bool {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	return slices.Contains(w.store.appends, n)
}

// TestOffersBeforeListing shows that what a router follows is neither in the tail
// nor listed before the router has it.
func TestOffersBeforeListing(t *testing.T) {
	w := newWorld(t, makeMedia(t, 8), newFakeStore(), nil)
	w.origin.cfg.OfferWait = wait
	r := w.start(placement("demo", 1, time.Now()), 1)
	first := w.next("a", "")
	if first.code != http.StatusOK || len(strings.TrimSpace(string(first.body))) > 0 {
		t.Fatalf("before anything is offered: %d %q", first.code, first.body)
	}
	r.inits(all...)
	for n := 1; n <= 3; n++ {
		r.segment(n, all...)
		offer := w.following("a", n)
		paths := strings.Fields(string(offer.body))
		if want := map[bool]int{true: 6, false: 3}[n == 1]; len(paths) != want {
			t.Errorf("number %d: %d paths offered, want %d: %q", n, len(paths), want, paths)
		}
		for _, path := range paths {
			if code, _ := w.get("/live/demo/" + path); code != http.StatusOK {
				t.Errorf("%s is offered and answers %d", path, code)
			}
		}
		if _, list := w.get("/live/demo/180p/index.m3u8"); w.appended(uint64(n)) || has(fmt.Sprintf("/%d.m4s", n))(list) {
			t.Errorf("number %d is public before its router has it", n)
		}
		// The router has it, and is told when it is listed.
		told := w.next("a", offer.header.Get(HeaderOffer))
		if v := told.header.Get(HeaderVersion); told.code != http.StatusOK || v != fmt.Sprintf("1.1.%d", n) {
			t.Errorf("told %d, version %q", told.code, v)
		}
		if _, list := w.get("/live/demo/180p/index.m3u8"); !w.appended(uint64(n)) || !has(fmt.Sprintf("/%d.m4s", n))(list) {
			t.Errorf("number %d is not public though its router has it", n)
		}
	}
}

// TestOffersWaitForNobodyElse shows that routers which leave, are slow or have
// gone hold up nothing for long.
func TestOffersWaitForNobodyElse(t *testing.T) {
	w := newWorld(t, makeMedia(t, 8), newFakeStore(), nil)
	r := w.start(placement("demo", 1, time.Now()), 1)
	w.next("slow", "")
	r.inits(all...)
	r.segment(1, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("/1.m4s")) // after OfferWait
	w.origin.cfg.OfferWait = wait
	start := time.Now()
	w.next("slow", "")
	r.segment(2, all...)
	w.eventually("/live/demo/180p/index.m3u8", 200, has("/2.m4s"))
	if took := time.Since(start); took > wait/2 {
		t.Errorf("a router that is known to be slow was waited for: %v", took)
	}
	// Once it keeps up it is waited for again.
	w.next("slow", w.next("slow", "").header.Get(HeaderOffer))
	r.segment(3, all...)
	offer := w.following("slow", 3)
	if w.appended(3) {
		t.Error("a router that keeps up again was not waited for")
	}
	// A higher epoch ends the wait, and nothing is listed.
	w.origin.Fence("demo", 2)
	<-r.Done()
	if w.appended(3) {
		t.Error("a fenced run listed a number")
	}
	for _, path := range strings.Fields(string(offer.body)) {
		if code, _ := w.get("/live/demo/" + path); code != http.StatusNotFound {
			t.Errorf("%s, which was offered and not listed, answers %d", path, code)
		}
	}
	if a := w.next("slow", ""); a.code != http.StatusGone {
		t.Errorf("following a fenced stream: %d", a.code)
	}
}

func TestOnlyRoutersFollow(t *testing.T) {
	w, _ := liveWorld(t)
	if a := w.next("", ""); a.code != http.StatusBadRequest {
		t.Errorf("without a name: %d", a.code)
	}
	w.origin.cfg.VerifyEpoch = func(_ string, epoch uint64, header string) bool { return header == "1;good" }
	for header, want := range map[string]int{"": 403, "1": 403, "1;bad": 403, "1;good": 200} {
		if a := w.do(http.MethodGet, "/live/demo/next?by=a", HeaderEpoch, header); a.code != want {
			t.Errorf("%q: %d, want %d", header, a.code, want)
		}
	}
	if a := w.do(http.MethodGet, "/live/none/next?by=a"); a.code != http.StatusNotFound {
		t.Errorf("a stream that is not here: %d", a.code)
	}
	// A server that shuts down does not wait for those who wait.
	after := w.do(http.MethodGet, "/live/demo/next?by=a", HeaderEpoch, "1;good").header.Get(HeaderOffer)
	w.origin.EndWaits()
	quickest := time.Hour // a busy machine may delay one
	for range 3 {
		start := time.Now()
		if a := w.do(http.MethodGet, "/live/demo/next?by=a&after="+after, HeaderEpoch, "1;good"); a.code != http.StatusNoContent {
			t.Errorf("at the end: %d", a.code)
		}
		quickest = min(quickest, time.Since(start))
	}
	if quickest > nextWait/2 {
		t.Errorf("at the end it still waits: %v", quickest)
	}
}

// TestRoutersDoNotWakeEachOther: a router's question is news to the listing that
// waits for it, and to no other router.
func TestRoutersDoNotWakeEachOther(t *testing.T) {
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	now := time.Now()
	f := newOffers()
	f.hears("a", 0, now, time.Second)
	f.put([]string{"seg"}, now)
	for what, do := range map[string]func(){
		"asks":   func() { f.hears("b", 0, now, time.Second) },
		"leaves": func() { f.leaves("b") },
	} {
		n, heard := f.missing(now)
		_, _, changed := f.newest()
		if do(); closed(changed) || !closed(heard) {
			t.Errorf("with %d missing another router %s: it woke routers %t, the listing %t", n, what, closed(changed), closed(heard))
		}
	}
	_, heard := f.missing(now)
	_, _, changed := f.newest()
	if f.wake(); !closed(changed) || !closed(heard) {
		t.Error("a fence did not wake all")
	}
}

// TestAnotherOriginsOffer: a router that comes from another origin names that one's
// offer, which may have the number of ours.
func TestAnotherOriginsOffer(t *testing.T) {
	now := time.Now()
	ours, theirs := newOffers(), newOffers()
	for name, want := range map[string]uint64{
		ours.name(7, "1.1.9"): 7, ours.name(1, ""): 1, theirs.name(7, "1.1.9"): 0, "": 0, "7.1.1.9": 0, ours.id: 0, ours.id + ".x.1.1.9": 0,
	} {
		if got := ours.held(name); got != want {
			t.Errorf("%q: %d, want %d", name, got, want)
		}
	}
	ours.put([]string{"seg"}, now)
	ours.hears("a", ours.held(theirs.name(1, "")), now, time.Second)
	if n, _ := ours.missing(now); n != 1 {
		t.Errorf("a router that has another origin's first offer is taken to have ours: %d missing", n)
	}
	ours.hears("a", ours.held(ours.name(1, "")), now, time.Second)
	if n, _ := ours.missing(now); n != 0 {
		t.Errorf("a router that has it: %d missing", n)
	}
}
