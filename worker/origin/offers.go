package origin

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// A number's segments are offered to the routers that watch the stream before it
// is recorded and listed. So what a successor finds in the tail, and lists, is
// held by those routers though the worker is gone:
//
//	whole on every rendition → offered → each router has fetched it, or OfferWait → recorded → listed
//
// A router follows a stream by asking for /live/{stream}/next again and again: the
// answer is what is offered, or that a newer number is listed, and waits until
// there is either. The next question tells that the router has what was offered.
const (
	// HeaderOffer names an offer: a router sends it back as the query after.
	HeaderOffer = "Dionysia-Offer"
	// nextWait bounds how long a question is not answered.
	nextWait = 2 * time.Second
	// followLease is how long a router counts as following after its last question.
	followLease = nextWait + time.Second
	// maxFollowers bounds the routers that are waited for.
	maxFollowers = 256
)

// offers are a stream's. Only the newest can be fetched by its name.
type offers struct {
	id      string // tells them from another origin's, and from an earlier process's
	mu      sync.Mutex
	seq     uint64 // of the newest, 0: there was none
	at      time.Time
	paths   []string // below /live/{stream}/
	routers map[string]*follower
	changed chan struct{} // closed when there is something to tell the routers
	heard   chan struct{} // closed then too, and when one of them has asked or left
}

// follower is a router that follows the stream.
type follower struct {
	held uint64 // the newest offer that it has
	seen time.Time
	// slow says that it did not have the last offers in time: it is not waited for
	// until it has one in time.
	slow bool
}

func newOffers() *offers {
	return &offers{id: rand.Text()[:8], routers: map[string]*follower{}, changed: make(chan struct{}), heard: make(chan struct{})}
}

// wake lets all that wait look again.
func (f *offers) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wakeLocked()
}

func (f *offers) wakeLocked() {
	close(f.changed)
	f.changed = make(chan struct{})
	f.hearLocked()
}

// hearLocked lets the listing that waits look again, and no router: each of them
// asks about each number, and would wake all others.
func (f *offers) hearLocked() {
	close(f.heard)
	f.heard = make(chan struct{})
}

// name is what HeaderOffer says of the offer seq while version is listed.
func (f *offers) name(seq uint64, version string) string {
	return fmt.Sprintf("%s.%d.%s", f.id, seq, version)
}

// held is the offer that a name is of, 0 if it is none of these.
func (f *offers) held(name string) uint64 {
	rest, ours := strings.CutPrefix(name, f.id+".")
	if !ours {
		return 0
	}
	text, _, _ := strings.Cut(rest, ".")
	seq, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return seq
}

// put offers paths.
func (f *offers) put(paths []string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq, f.at, f.paths = f.seq+1, now, paths
	for id, r := range f.routers {
		if now.Sub(r.seen) > followLease {
			delete(f.routers, id)
		}
	}
	f.wakeLocked()
}

// hears notes a router's question, with the newest offer that it has; one that was
// put longer than inTime ago is no proof that the router is not slow.
func (f *offers) hears(router string, held uint64, now time.Time, inTime time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.routers[router]
	if r == nil {
		if len(f.routers) >= maxFollowers {
			return
		}
		r = &follower{}
		f.routers[router] = r
	}
	r.held, r.seen = held, now
	if held == f.seq && now.Sub(f.at) <= inTime {
		r.slow = false
	}
	f.hearLocked()
}

// leaves forgets a router whose connection has ended.
func (f *offers) leaves(router string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.routers, router)
	f.hearLocked()
}

// missing counts the routers that have not got the newest offer and are waited for.
func (f *offers) missing(now time.Time) (n int, heard <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.routers {
		if r.held != f.seq && !r.slow && now.Sub(r.seen) <= followLease {
			n++
		}
	}
	return n, f.heard
}

// giveUp stops waiting for those that have not got the newest offer.
func (f *offers) giveUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.routers {
		r.slow = r.slow || r.held != f.seq
	}
}

func (f *offers) newest() (seq uint64, paths []string, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq, f.paths, f.changed
}

// offer makes a number's segments fetchable, tells the routers that follow the
// stream, and waits until they have them. st.mu is held.
func (o *Origin) offer(st *state, run *runState, local uint64, infos []segmentInfo, first bool) (keys []string, err error) {
	now := o.cfg.Now()
	for i, t := range run.tracks {
		key := initKey(run.start.ID, t.Name)
		if first {
			st.files.Store(key, initFile(t, run.made[i].init.bytes, now))
			keys = append(keys, key)
		}
		key = segmentKey(run.start.ID, t.Name, local)
		st.files.Store(key, segmentFile(run.start.ID, t, local, run.path(i, local), infos[i].size, now))
		keys = append(keys, key)
	}
	paths := make([]string, len(keys))
	for i, key := range keys {
		paths[i] = "seg/" + key
	}
	start := time.Now()
	st.offers.put(paths, start)
	limit := time.NewTimer(o.cfg.OfferWait)
	defer limit.Stop()
	waited := false
	for {
		n, heard := st.offers.missing(time.Now())
		switch {
		case st.fencedBy.Load() > run.start.ID.Epoch:
			st.withdraw(keys)
			return nil, stream.ErrFenced
		case n == 0 || o.ctx.Err() != nil:
			if waited {
				o.metrics.offered.Observe(time.Since(start).Seconds())
			}
			return keys, nil
		}
		waited = true
		select {
		case <-heard:
		case <-o.ctx.Done():
		case <-limit.C:
			o.metrics.offered.Observe(time.Since(start).Seconds())
			o.metrics.unfetched.Inc()
			st.log.Info("routers have not fetched a number's segments in time; listing it", "routers", n, "local", local)
			st.offers.giveUp()
			return keys, nil
		}
	}
}

// withdraw takes back what was offered and will not be listed.
func (st *state) withdraw(keys []string) {
	for _, key := range keys {
		st.files.Delete(key)
	}
}

// serveNext answers a router that follows a stream; see offers.
func (o *Origin) serveNext(w http.ResponseWriter, r *http.Request, st *state) {
	router, after := r.URL.Query().Get("by"), r.URL.Query().Get("after")
	if router == "" || len(router) > 64 || len(after) > 128 {
		fail(w, http.StatusBadRequest, "by is a router's name, after its newest offer")
		return
	}
	if !o.fromRouter(st, r) {
		fail(w, http.StatusForbidden, "for routers: "+HeaderEpoch+" must be signed")
		return
	}
	wait := nextWait
	if ms, err := strconv.Atoi(r.URL.Query().Get("wait")); err == nil && ms >= 0 {
		wait = min(wait, time.Duration(ms)*time.Millisecond)
	}
	st.offers.hears(router, st.offers.held(after), time.Now(), o.cfg.OfferWait)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		seq, paths, changed := st.offers.newest()
		v := st.view.Load()
		if v.status == absent || v.status == gone || st.fencedBy.Load() > v.epoch {
			fail(w, http.StatusGone, "nothing is listed here")
			return
		}
		token := st.offers.name(seq, v.version)
		h := w.Header()
		h.Set("Cache-Control", cacheError)
		h.Set(HeaderOffer, token)
		h.Set(HeaderVersion, v.version)
		if token != after {
			_, _ = fmt.Fprintln(w, strings.Join(paths, "\n"))
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			w.WriteHeader(http.StatusNoContent)
			return
		case <-r.Context().Done():
			st.offers.leaves(router)
			return
		case <-o.ending:
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
}

// fromRouter says whether a request comes from a router: those sign the epoch.
func (o *Origin) fromRouter(st *state, r *http.Request) bool {
	if o.cfg.VerifyEpoch == nil {
		return true
	}
	header := r.Header.Get(HeaderEpoch)
	text, _, _ := strings.Cut(header, ";")
	epoch, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	return err == nil && o.cfg.VerifyEpoch(st.id, epoch, header)
}

// EndWaits answers all that wait for what is next, so that the server can shut
// down.
func (o *Origin) EndWaits() { o.endWaits.Do(func() { close(o.ending) }) }
