package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/e2e/kit"
)

// starting measures, on one installation, how long after its publisher's start
// a stream can be played through the router, and how long after its last byte
// is written a segment is listed by the origin.
func (b *bench) starting() error {
	src, err := source(b.t, b.t.TempDir())
	if err != nil {
		return err
	}
	return b.t.Within(func(t *harness.T) error {
		i := kit.Install(t)
		var firsts, delays []float64
		for n := range b.starts {
			id := fmt.Sprintf("start%d", n)
			key, err := newStream(i, id, kit.SmallLadder())
			if err != nil {
				return err
			}
			begin := time.Now()
			pub := kit.Start(t, "publisher", append(src, i.RTMPTarget(id, key)...))
			if err := kit.Playable(i.Master(id), 60*time.Second); err != nil {
				return err
			}
			firsts = append(firsts, time.Since(begin).Seconds())
			ready := 0.0
			if st, err := i.Status(id); err == nil && st.Session != nil {
				ready = st.Session.StartedAt.Sub(begin).Seconds()
			}
			t.Logf("publish %d: playable after %.2f s, of which %.2f s until mediamtx knew the tracks", n+1, firsts[n], ready)
			if n == 0 {
				if delays, err = listDelays(i, id, 20); err != nil {
					return err
				}
				t.Logf("listed after: %.3f", delays)
			}
			pub.Kill()
			if err := gone(i, id); err != nil {
				return err
			}
		}
		b.figures.Add("first_play_seconds", harness.Median(firsts), "s", fmt.Sprintf("<=%.1f", segment+1.5))
		b.figures.Add("list_delay_seconds", harness.Median(delays), "s", "<0.3")
		return nil
	})
}

// listDelays watches the origin's playlist and compares the moment at which a
// number appears with the last write to any of its files.
func listDelays(i *kit.Installation, stream string, n int) ([]float64, error) {
	m, err := kit.FetchMaster(i.Master(stream))
	if err != nil {
		return nil, err
	}
	at := strings.Replace(m.Variants[0].URL, i.Router, i.Origin, 1)
	seen := map[uint64]bool{}
	var delays []float64
	for first, deadline := true, time.Now().Add(3*time.Minute); len(delays) < n; first = false {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("only %d segments were listed", len(delays))
		}
		media, err := kit.FetchMedia(at)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		for _, s := range media.Segments {
			if seen[s.Number] {
				continue
			}
			seen[s.Number] = true
			if first {
				continue // listed before we looked
			}
			written, err := lastWrite(i, stream, s.URL)
			if err != nil {
				return nil, err
			}
			delays = append(delays, now.Sub(written).Seconds())
		}
		time.Sleep(10 * time.Millisecond)
	}
	return delays, nil
}

// lastWrite returns when the last file of a segment's number was written:
// <run dir>/<stream>/<run>/<rendition>_<local>.m4s, for every rendition.
func lastWrite(i *kit.Installation, stream, segment string) (time.Time, error) {
	u, err := url.Parse(segment)
	if err != nil {
		return time.Time{}, err
	}
	p := strings.Split(strings.TrimPrefix(u.Path, "/"), "/") // live/stream/seg/run/rendition/n.m4s
	if len(p) != 6 {
		return time.Time{}, fmt.Errorf("segment URL %s", segment)
	}
	files, err := filepath.Glob(filepath.Join(i.RunDir, stream, p[3], "*_"+p[5]))
	if err != nil || len(files) == 0 {
		return time.Time{}, fmt.Errorf("no file of %s in %s: %w", segment, i.RunDir, err)
	}
	var last time.Time
	for _, f := range files {
		fi, err := os.Stat(f)
		if err != nil {
			return time.Time{}, err
		}
		if fi.ModTime().After(last) {
			last = fi.ModTime()
		}
	}
	return last, nil
}

// gone waits until nothing is transcoded any more.
func gone(i *kit.Installation, stream string) error {
	return kit.Wait(context.Background(), 60*time.Second, func() error {
		if ps := i.GPACs(); len(ps) > 0 {
			return fmt.Errorf("%s still runs: %v", stream, ps)
		}
		return nil
	})
}
