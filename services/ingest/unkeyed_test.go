package ingest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

func TestUnkeyedIsBounded(t *testing.T) {
	u := newUnkeyed()
	for i := range 1000 { // one stream, from everywhere
		u.add(publishRequest{Stream: "demo", Remote: fmt.Sprint("192.0.2.", i)}, clock(float64(i)/100))
	}
	if n := len(u.waiting); n != 1 {
		t.Errorf("one stream: %d wait", n)
	}
	u.add(publishRequest{Stream: "demo"}, clock(60))
	if n := len(u.waiting); n != 2 {
		t.Errorf("a minute later: %d wait", n)
	}
	for i := range 2 * maxQuiet { // it would block here if nothing were dropped
		u.add(publishRequest{Stream: fmt.Sprint("s", i)}, clock(61))
	}
	if n := len(u.waiting); n != maxUnkeyed {
		t.Errorf("many streams: %d wait", n)
	}
}

// TestUnkeyedNeverWaits shows that an api that hangs holds up neither the
// refusal nor, afterwards, a publisher with a key.
func TestUnkeyedNeverWaits(t *testing.T) {
	api := newFakeAPI(t)
	hang := make(chan struct{})
	api.set(func() { api.hang = hang })
	a := quietAgent(t, api.URL)
	ctx, cancel := context.WithCancel(t.Context())
	a.wg.Go(func() { a.unkeyedLoop(ctx) })
	defer a.wg.Wait()
	defer cancel()

	bare := authRequest{Action: "publish", Path: "live/demo", Protocol: "rtmp", IP: "192.0.2.1", ID: "1"}
	begin := time.Now()
	v := a.authorize(t.Context(), bare)
	a.record(bare, v)
	if took := time.Since(begin); v.ok || v.reason != reasonNoKey || took > reportTimeout/2 {
		t.Errorf("%+v after %s", v, took)
	}
	testkit.Eventually(t, wait, "the loop to have taken it", func() error {
		if n := len(a.unkeyed.waiting); n != 0 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	second := bare
	second.Path = "live/other"
	a.record(second, verdict{reason: reasonNoKey})
	testkit.Eventually(t, wait, "the first one given up, the second taken", func() error {
		if n := len(a.unkeyed.waiting); n != 0 {
			return fmt.Errorf("%d wait", n)
		}
		return nil
	})
	api.set(func() { api.hang = nil })
	close(hang)
	keyed := bare
	keyed.Query = "key=sesame"
	if v := a.authorize(t.Context(), keyed); !v.ok {
		t.Errorf("with a key: %+v", v)
	}
	testkit.Eventually(t, wait, "the api to be told of the second", func() error {
		if n := api.unkeyed("other"); n != 1 {
			return fmt.Errorf("told %d times", n)
		}
		return nil
	})
}

func TestUnkeyedAnswers(t *testing.T) {
	for status, bad := range map[int]bool{http.StatusForbidden: false, http.StatusOK: true, http.StatusServiceUnavailable: true} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		err := newAPIClient(srv.URL, "t", time.Second).refused(t.Context(), publishRequest{Stream: "demo"})
		srv.Close()
		if (err != nil) != bad {
			t.Errorf("status %d: %v", status, err)
		}
	}
}
