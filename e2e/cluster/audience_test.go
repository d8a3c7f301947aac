package cluster_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/clusterkit"
	"github.com/dionysia-dev/dionysia/e2e/kit"
)

const (
	moves  = time.Minute     // how long a stream may take to run elsewhere
	longer = 3 * time.Minute // what Nomad does step by step
	// behind is how much later hls.js plays what is listed: hold_back, 12 s, and a segment.
	// What comes after that has no part in what happened before.
	behind = 14 * time.Second
)

// audience is a stream with its publisher, hls.js in Chromium and a watcher that
// follows every rendition; both ask whichever edge answers.
type audience struct {
	c       *cluster
	t       *testing.T // the test that all of it lives as long as
	stream  string
	watch   *kit.HLSWatch
	players *kit.PlayerServer
	page    *kit.Page
	told    map[string]bool // what a test before this one has reported
}

// gather publishes a stream and waits until it plays.
func (c *cluster) gather(t *testing.T, stream string) *audience {
	t.Helper()
	if err := c.PutProfile("e2e", kit.SmallLadder()); err != nil {
		t.Fatal(err)
	}
	key, err := c.CreateStream(kit.StreamSpec{ID: stream, Profile: "e2e"})
	if err != nil {
		t.Fatal(err)
	}
	a := &audience{c: c, t: t, players: kit.StartPlayers(t), stream: stream, told: map[string]bool{}}
	// It connects again by itself, as encoders do.
	encoder := append([]string{kit.FFmpeg(t)}, append(kit.Picture{}.Args(), c.RTMP(stream, key)...)...)
	kit.Start(t, "publisher", append([]string{"/bin/sh", "-c", `while :; do "$@"; sleep 0.5; done`, "encoder"}, encoder...))
	c.Placement(t, stream, "")
	master := c.At(1) + "/live/" + stream + "/master.m3u8"
	a.watch = kit.WatchHLS(t, master, goesLive)
	// A player that comes when less than hold_back is listed starts with less, and stays so.
	a.watch.WaitSegments(t, 9, goesLive)
	return a
}

// viewer lets another one come in the place of the one before. What an audience sees
// of a move is time that it is behind less from then on: to judge one it must have
// all of hold_back.
func (a *audience) viewer(t *testing.T) {
	t.Helper()
	if a.page != nil {
		a.page.Close(t)
	}
	a.page = a.players.Open(a.t, "hls.html", a.watch.Master.URL)
	a.page.WaitStarted(t, goesLive)
	t.Logf("hls.js plays: %s", a.page.WaitFor(t, aWhile, "has all of its buffer", func(r kit.Report) bool { return r.Ahead >= 9 }))
}

// through does something to the cluster while the audience watches, and waits until
// the player has played past it. The player may stand still for so long, all in
// all; nothing may be fatal to it, and no number may be missing or come twice.
func (a *audience) through(t *testing.T, atMost time.Duration, do func()) {
	t.Helper()
	before, err := a.page.Report()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	do()
	a.watch.WaitSegments(t, 2, moves)
	now, err := a.page.Report()
	if err != nil {
		t.Fatal(err)
	}
	after := a.page.WaitFor(t, behind+moves, "plays on", func(r kit.Report) bool { return r.Current >= now.Current+behind.Seconds() && r.Stuck < 0.3 })
	since := after.Since(before)
	t.Logf("hls.js watched for %.1f s: stalls %v, jumps %v, errors %v; buffered %.1f s, %d changes", time.Since(began).Seconds(), since.Stalls, since.Jumps, since.Errors,
		after.Ahead, after.Changes-before.Changes)
	if still := since.StallSeconds(); still > atMost.Seconds() {
		t.Errorf("hls.js stood still for %.2f s, at most %v is right: %+v; samples (wall, position, ahead) %v", still, atMost, since.Stalls, tail(after.Samples, 60))
	}
	if played := after.Current - before.Current; played < time.Since(began).Seconds()-atMost.Seconds()-3 {
		t.Errorf("hls.js played %.1f s in %v", played, time.Since(began))
	}
	if after.Colours < 3 || after.Changes == before.Changes {
		t.Errorf("the picture is blank or frozen: %d colours, %d changes", after.Colours, after.Changes-before.Changes)
	}
	a.expectClean(t)
}

func tail[E any](list []E, n int) []E { return list[max(0, len(list)-n):] }

// expectClean fails t for what the watcher has found since the last call.
func (a *audience) expectClean(t *testing.T) {
	t.Helper()
	for _, p := range a.watch.Problems() {
		if !a.told[p] {
			a.told[p] = true
			t.Error(p)
		}
	}
}

// moved waits until the stream runs at a higher epoch.
func (a *audience) moved(t *testing.T, from clusterkit.Placed) clusterkit.Placed {
	t.Helper()
	began := time.Now()
	var to clusterkit.Placed
	kit.Eventually(t, moves, a.stream+" running at a higher epoch", func() error {
		s, err := a.c.Status(a.stream)
		if err != nil {
			return err
		}
		if s.Placement == nil || s.Run == nil || s.State != "live" || s.Placement.Epoch <= from.Epoch {
			return fmt.Errorf("%s, placement %+v, run %+v: %s", s.State, s.Placement, s.Run, s.LastError)
		}
		to = clusterkit.Placed{Worker: s.Placement.Worker, Epoch: s.Placement.Epoch}
		return nil
	})
	t.Logf("epoch %d on %s → epoch %d on %s, running after %.1f s", from.Epoch, from.Worker, to.Epoch, to.Worker, time.Since(began).Seconds())
	a.listed(t, to, began)
	return to
}

// listed waits until a run's first segment is.
func (a *audience) listed(t *testing.T, p clusterkit.Placed, began time.Time) {
	t.Helper()
	kit.Eventually(t, moves, "a segment of the new run being listed", func() error {
		for _, tr := range a.watch.Tracks() {
			found := false
			for _, s := range tr.Last.Segments {
				found = found || strings.Contains(s.URL, fmt.Sprintf("/e%dr", p.Epoch))
			}
			if !found {
				return fmt.Errorf("%s lists none of epoch %d", tr.Variant.URL, p.Epoch)
			}
		}
		return nil
	})
	t.Logf("its first segment is listed by every rendition after %.1f s", time.Since(began).Seconds())
}

// passes waits until so many instances of a service pass, and returns them.
func (c *cluster) passes(t *testing.T, service string, count int, limit time.Duration) []clusterkit.Instance {
	t.Helper()
	var list []clusterkit.Instance
	kit.Eventually(t, limit, fmt.Sprintf("%d instances of %s passing", count, service), func() error {
		if list = c.Passing(t, service); len(list) != count {
			return fmt.Errorf("%v", list)
		}
		return nil
	})
	return list
}
