package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// One broadcast through every accident that it must survive, with hls.js and
// dash.js playing all the time: GPAC killed, the publisher gone and back within
// the grace, Redis frozen. Then its end.
func TestGoesOn(t *testing.T) {
	realTime(t)
	d := kit.StartDev(t, kit.DevOptions{})
	// A hold-back that outlasts what the accidents cost and then the grace: hls.js does
	// not end when it has run dry before the playlist's end is told.
	key := newStream(t, d, kit.StreamSpec{ID: "show", Grace: 10, HoldBack: 24})
	pub := kit.Publish(t, kit.Picture{}, d.RTMPTarget("show", key))
	w := kit.WatchHLS(t, d.Master("show"), goesLive)
	mpd := kit.WatchMPD(t, d.MPD("show"), aWhile)
	w.WaitSegments(t, 13, goesLive) // more than the hold-back of 24 s
	s := kit.StartPlayers(t)
	hls, dash := s.Open(t, "hls.html", d.Master("show")), s.Open(t, "dash.html", d.MPD("show"))
	hls.WaitStarted(t, aWhile)
	dash.WaitStarted(t, aWhile)
	hls.Play(t, 5*time.Second)

	publish := func() *kit.Proc { return kit.Publish(t, kit.Picture{}, d.RTMPTarget("show", key)) } // outlives the subtest
	lastHLS, lastDASH := kit.Report{}, kit.Report{}
	playsOn := func(t *testing.T) {
		t.Helper()
		// Both must get past the join: the hold-back and a little more.
		h := hls.Play(t, 32*time.Second)
		r, err := dash.Report()
		if err != nil {
			t.Fatal(err)
		}
		expectNoStall(t, h.Since(lastHLS))
		expectNoStall(t, r.Since(lastDASH))
		lastHLS, lastDASH = h, r
	}

	t.Run("GPAC killed", func(t *testing.T) {
		before := w.Newest()
		d.KillGPAC()
		at := time.Now()
		kit.Eventually(t, aWhile, "a new segment", func() error {
			if n := w.Newest(); n <= before+1 {
				return fmt.Errorf("the newest is %d", n)
			}
			return nil
		})
		t.Logf("kill → new segments: %.1f s", time.Since(at).Seconds())
		playsOn(t)
		if disc := w.Discontinuities(); len(disc) != 1 {
			t.Errorf("discontinuities before %v; one was due", disc)
		}
		if st, err := d.Status("show"); err != nil || st.Run == nil || st.Run.Restarts < 1 {
			t.Errorf("status after the kill: %+v, %v", st, err)
		}
		if n := len(mpd.Last().Periods); n != 2 {
			t.Errorf("%d Periods in the MPD", n)
		}
		t.Run("ffmpeg joins late", func(t *testing.T) {
			a := kit.StartFFPlay(t, d.Master("show"), 15*time.Second, time.Minute)
			b := kit.StartFFPlay(t, d.MPD("show"), 15*time.Second, time.Minute)
			(<-a).Expect(t, "ffmpeg HLS", 15*time.Second, 0)
			(<-b).Expect(t, "ffmpeg DASH", 15*time.Second, 0)
		})
	})

	t.Run("publisher back within the grace", func(t *testing.T) {
		id := broadcast(t, d, "show")
		before := w.Newest()
		pub.Kill()
		waitState(t, d, "show", aWhile, "grace")
		pub = publish()
		kit.Eventually(t, aWhile, "a new segment", func() error {
			if n := w.Newest(); n <= before+2 {
				return fmt.Errorf("the newest is %d", n)
			}
			return nil
		})
		playsOn(t)
		if now := broadcast(t, d, "show"); now != id {
			t.Errorf("it is another broadcast: %s, not %s", now, id)
		}
		if disc := w.Discontinuities(); len(disc) != 2 {
			t.Errorf("discontinuities before %v; two were due", disc)
		}
	})

	t.Run("Redis frozen", func(t *testing.T) {
		redis := d.Children("redis-server")
		if len(redis) != 1 {
			t.Fatalf("redis: %v", redis)
		}
		if err := syscall.Kill(redis[0].Pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		thaw := func() { _ = syscall.Kill(redis[0].Pid, syscall.SIGCONT) }
		defer thaw()
		w.WaitSegments(t, 5, goesLive)
		thaw()
		w.WaitSegments(t, 5, goesLive)
		playsOn(t)
		if disc := w.Discontinuities(); len(disc) != 2 {
			t.Errorf("discontinuities before %v though only Redis was away", disc)
		}
	})

	t.Run("the end", func(t *testing.T) {
		stopPublisher(t, pub)
		w.WaitEnded(t, 10*time.Second+aWhile)
		noGPAC(t, d, aWhile)
		kit.Eventually(t, aWhile, "the reservation coming back", func() error {
			if px, err := d.Reserved("show"); err != nil || px != 0 {
				return fmt.Errorf("%d px/s, %w", px, err)
			}
			return nil
		})
		hls.WaitFor(t, time.Minute, "reaches the end", func(r kit.Report) bool { return r.Ended })
		dash.WaitFor(t, time.Minute, "reaches the end", func(r kit.Report) bool { return r.Ended })
		if m := mpd.Last(); m.Type != "static" {
			t.Errorf("the MPD's type is %s after the end", m.Type)
		}
	})
	w.Close()
	mpd.Close()
	w.ExpectClean(t)
	mpd.ExpectClean(t)
	w.ExpectRuns(t, kit.Expect{FPS: 25, Audio: 1})

	t.Run("the next broadcast", func(t *testing.T) {
		last := w.Newest()
		kit.Publish(t, kit.Picture{}, d.RTMPTarget("show", key))
		kit.Eventually(t, goesLive, "a new playlist", func() error {
			m, err := kit.FetchMedia(w.Master.Variants[0].URL)
			if err != nil {
				return err
			}
			if m.End || len(m.Segments) == 0 {
				return fmt.Errorf("%d segments, ended %v", len(m.Segments), m.End)
			}
			if m.Seq <= last {
				t.Errorf("its first number is %d, the last broadcast's last was %d", m.Seq, last)
			}
			return nil
		})
	})
}

func broadcast(t *testing.T, d *kit.Dev, stream string) string {
	t.Helper()
	s, err := d.Status(stream)
	if err != nil || s.Broadcast == nil {
		t.Fatalf("status of %s: %+v, %v", stream, s, err)
	}
	return s.Broadcast.ID
}

// expectNoStall allows a join to cost what was measured for audio that doesn't
// meet: a skip of under half a second, and no time standing still.
func expectNoStall(t *testing.T, r kit.Report) {
	t.Helper()
	t.Logf("%s", r)
	if s := r.StallSeconds(); s > 0 {
		t.Errorf("%s stood still for %.2f s: %+v; events %+v", r.Player, s, r.Stalls, r.Events)
	}
	if len(r.Fatal) > 0 {
		t.Errorf("%s: fatal %+v", r.Player, r.Fatal)
	}
	for _, j := range r.Jumps {
		if d := j.To - j.From; d < -0.3 || d > 0.9 {
			t.Errorf("%s jumped from %.2f to %.2f", r.Player, j.From, j.To)
		}
	}
}

// A publisher that is connected and silent for 2 s loses the stream to one
// that has the right key, and not to one that hasn't.
func testTakeover(t *testing.T, d *kit.Dev) {
	key := newStream(t, d, kit.StreamSpec{ID: "silent"})
	first := kit.Publish(t, kit.Picture{}, d.RTMPTarget("silent", key))
	w := kit.WatchHLS(t, d.Master("silent"), goesLive)
	first.Signal(syscall.SIGSTOP)
	defer first.Kill()
	refused(t, "wrong key", d.RTMPTarget("silent", "wrong-key-wrong-key"))
	var second *kit.Proc
	kit.Eventually(t, aWhile, "the second publisher being let in", func() error {
		if second == nil || !second.Running() {
			second = kit.Publish(t, kit.Picture{}, d.RTMPTarget("silent", key))
		}
		for range 40 {
			if !second.Running() {
				return fmt.Errorf("%s", kit.Tail(second.Log, 300))
			}
			time.Sleep(100 * time.Millisecond)
		}
		return nil
	})
	w.WaitSegments(t, 3, goesLive)
	if disc := w.Discontinuities(); len(disc) != 1 {
		t.Errorf("discontinuities before %v; one was due", disc)
	}
	w.ExpectClean(t)
	stopPublisher(t, second)
	if err := d.DeleteStream("silent"); err != nil {
		t.Error(err)
	}
	noGPAC(t, d, aWhile)
}
