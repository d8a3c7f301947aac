package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A router follows each stream that it keeps warm: it asks the stream's origin
// what comes next, and is told what is offered, before that is listed, and that
// something is listed. The origin waits a little for those that follow, so that
// its successor lists nothing that no router has.
//
//	ask ──offered──▶ fetch ──▶ ask (which says that it has it) …
//	 │ └─listed────▶ the manifests are looked at now
//	 └─ fails ─────▶ pause: the manifests are looked at once a second anyway
const (
	nextFile = "next"
	// headerOffer names what an origin offers.
	headerOffer = "Dionysia-Offer"
	// maxOffered bounds the segments of one offer: one number on every rendition.
	maxOffered = 64
	// nextWait is how long the origin may wait with its answer.
	nextWait = 2 * time.Second
	// followRetry is the pause after a failure, followUnknown that after an origin
	// that knows no offers.
	followRetry   = 300 * time.Millisecond
	followUnknown = 5 * time.Second
	// followPace bounds the questions that are answered at once, within a second: of
	// a stream of 1 s segments two are, for each number.
	followPace = 50
	// offerTime bounds the fetches of one offer, with their wait in the lane.
	offerTime = 2 * time.Second
)

// errNoOffers says that an origin does not tell what comes next.
var errNoOffers = errors.New("origin knows no offers")

// follow follows st until ctx ends.
func (r *Router) follow(ctx context.Context, st *streamState) {
	after, failing := "", false
	var since time.Time
	answers := 0
	for ctx.Err() == nil {
		asked := time.Now()
		if answers++; asked.Sub(since) > time.Second {
			since, answers = asked, 0
		}
		offer, err := r.askNext(ctx, st, after)
		if err == nil && (offer.name != after || time.Since(asked) > followRetry) {
			failing = false
			r.take(ctx, st, offer)
			after = offer.name
			if answers < followPace {
				continue
			}
		}
		if err != nil && !failing && ctx.Err() == nil {
			r.log.Debug("can't follow", "stream", st.id, "error", err)
		}
		failing = err != nil
		pause := followRetry
		if errors.Is(err, errNoOffers) {
			pause = followUnknown
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// offer is an origin's answer.
type offer struct {
	name    string
	paths   []string
	version version
	epoch   uint64 // the origin's
}

// askNext asks the origin of the highest epoch what comes after the offer after.
func (r *Router) askNext(ctx context.Context, st *streamState, after string) (offer, error) {
	route, err := r.routeOf(ctx, st)
	if err != nil {
		return offer{}, err
	}
	epoch := max(route.Epoch, st.epoch.Load())
	origin, ok := originOf(route, epoch)
	if !route.Live || !ok {
		return offer{}, errNotLive
	}
	wait := min(nextWait, r.cfg.OriginTimeout/2)
	ctx, cancel := context.WithTimeout(ctx, nextWait+r.cfg.OriginTimeout)
	defer cancel()
	query := url.Values{"by": {r.name}, "after": {after}, "wait": {strconv.FormatInt(wait.Milliseconds(), 10)}}
	base := livePrefix + st.id + "/"
	resp, err := r.askBy(ctx, r.following, st, origin, base+nextFile+"?"+query.Encode())
	if err != nil {
		return offer{}, err
	}
	defer drain(resp)
	o := offer{name: resp.Header.Get(headerOffer), version: versionOf(resp.Header.Get(headerVersion), nil), epoch: epoch}
	switch {
	case resp.StatusCode == http.StatusGone:
		_, err := r.refreshRoute(ctx, st)
		return offer{}, errors.Join(statusError(resp.StatusCode), err)
	case resp.StatusCode == http.StatusNoContent && o.name != "":
		return o, nil
	case resp.StatusCode == http.StatusNotFound && o.name == "":
		return offer{}, fmt.Errorf("following: %w", statusError(resp.StatusCode)) // it may not have heard of the stream yet
	case resp.StatusCode != http.StatusOK || o.name == "":
		return offer{}, fmt.Errorf("%w: %w", errNoOffers, statusError(resp.StatusCode))
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxOffered*maxPath))
	if err != nil {
		return offer{}, fmt.Errorf("reading an offer: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			o.paths = append(o.paths, base+line)
		}
	}
	return o, nil
}

// take fetches what is offered, and looks at the manifests when something newer is
// listed. What can't be fetched holds up no listing: it is tried again when it is
// listed.
func (r *Router) take(ctx context.Context, st *streamState, o offer) {
	if o.epoch == st.epoch.Load() {
		st.listed(o.version, false)
	}
	ctx, cancel := context.WithTimeout(ctx, offerTime)
	defer cancel()
	var fetching sync.WaitGroup
	for _, path := range o.paths[:min(len(o.paths), maxOffered)] {
		t, err := parsePath(path)
		if err != nil || t.kind != kindSegment || t.stream != st.id || r.cache.holds(path) {
			continue
		}
		fetching.Go(func() {
			object, err := r.fetchAhead(ctx, r.followLane, st, t)
			if err != nil {
				return
			}
			defer r.cache.release(object)
			_ = waitWhole(ctx, object)
		})
	}
	fetching.Wait()
}
