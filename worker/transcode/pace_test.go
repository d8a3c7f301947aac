package transcode

import (
	"net"
	"os"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/worker/origin"
)

// feed gives a pace segments of 2 s, each the given seconds after the one before
// for video and sound.
func feed(p *pace, video, audio []float64) {
	start := time.Unix(1000, 0)
	var va, aa time.Duration
	for i := range max(len(video), len(audio)) {
		var rungs []origin.RungProgress
		one := func(name string, at *time.Duration, took []float64, fps float64) {
			n := min(i+1, len(took))
			if i < len(took) {
				*at += time.Duration(took[i] * float64(time.Second))
			}
			if n > 0 {
				rungs = append(rungs, origin.RungProgress{Name: name, LastSegmentAt: start.Add(*at), Segments: n, MediaEnd: time.Duration(2*n) * time.Second, FPS: fps})
			}
		}
		one("720p", &va, video, 30)
		one("aac", &aa, audio, 0)
		p.observe(rungs)
		p.observe(rungs) // ticks without news
	}
}

func TestPace(t *testing.T) {
	even := []float64{2, 2, 2, 2, 2, 2}
	for name, c := range map[string]struct {
		video, audio []float64
		slow         bool
	}{
		"in time":             {even, even, false},
		"a burst first":       {[]float64{4, 0.3, 0.2, 2, 2, 2, 2}, even, false},
		"jitter":              {[]float64{2, 2.4, 1.6, 2.3, 1.7, 2.2, 1.8}, even, false},
		"too few segments":    {[]float64{3, 3, 3}, even, false},
		"slow":                {[]float64{2.8, 2.8, 2.8, 2.8, 2.8}, even, true},
		"slow after a while":  {[]float64{2, 2, 2, 2, 2, 2, 3, 3, 3}, even, true},
		"a little, for long":  {[]float64{2, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2, 2.2}, even, true},
		"not far behind yet":  {[]float64{2, 2.2, 2.2, 2.2, 2.2}, even, false},
		"a hiccup, caught up": {[]float64{2, 2, 2, 5, 0.3, 0.3, 2, 2, 2}, even, false},
		"sound alone is slow": {even, []float64{3, 3, 3, 3, 3, 3}, false},
	} {
		var p pace
		feed(&p, c.video, c.audio)
		if n, v, slow := p.slow(2 * time.Second); slow != c.slow || slow && (n != "720p" || v >= slowPace) {
			t.Errorf("%s: %v %s %.2f", name, slow, n, v)
		}
	}
}

// Who sends too slowly is told from who takes too slowly.
func TestDelivers(t *testing.T) {
	slow := []float64{2.8, 2.8, 2.8, 2.8, 2.8}
	for name, c := range map[string]struct {
		audio  []float64
		unread int
		want   bool
	}{
		"the source is slow":             {slow, 1, false},
		"so is one without sound":        {nil, 0, false},
		"GPAC leaves its input unread":   {slow, unreadLooks - 1, true},
		"the sound is in time":           {[]float64{2, 2, 2, 2, 2}, 0, true},
		"too little sound to tell by it": {[]float64{2, 2, 2}, 0, false},
	} {
		var p pace
		feed(&p, slow, c.audio)
		for i := range unreadLooks {
			if _, known := p.delivers(); known {
				t.Errorf("%s: known after %d looks", name, i)
			}
			p.look(i < c.unread)
		}
		if got, known := p.delivers(); !known || got != c.want {
			t.Errorf("%s: %v %v", name, got, known)
		}
		if p.again(); p.looks != 0 || len(p.rungs) != 0 {
			t.Errorf("%s: it remembers", name)
		}
	}
}

func TestUnread(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	from, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	to, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = to.Close() }()
	if unread(os.Getpid()) {
		t.Error("nothing was sent")
	}
	if _, err := from.Write([]byte("picture")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); !unread(os.Getpid()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("what was sent is not seen")
		}
	}
	if _, err := to.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if unread(os.Getpid()) {
		t.Error("all was read")
	}
	if unread(1 << 30) {
		t.Error("no such process")
	}
}
