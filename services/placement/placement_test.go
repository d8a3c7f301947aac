package placement

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

func ptr[T any](v T) *T { return &v }

func worker(id string, px int64, edit ...func(*Worker)) Worker {
	w := Worker{
		Report: capacity.Report{Worker: id, Boot: "b-" + id, Ready: true, ClockErrorMillis: ptr(1.0),
			Devices: []capacity.Device{{ID: "cpu", Kind: capacity.CPU, Usable: true, Capacity: ptr(px)}}},
		Ledger: map[string]map[string]int64{},
	}
	for _, e := range edit {
		e(&w)
	}
	return w
}

func reserved(px int64) func(*Worker) {
	return func(w *Worker) { w.Ledger["cpu"] = map[string]int64{"other": px} }
}

func TestDecide(t *testing.T) {
	dev := func(edit func(*capacity.Device)) func(*Worker) {
		return func(w *Worker) { edit(&w.Report.Devices[0]) }
	}
	cases := map[string]struct {
		workers []Worker
		req     Request
		want    string // the worker, or part of the refusal
	}{
		"none":            {nil, Request{Price: 1}, "no worker has reported"},
		"one":             {[]Worker{worker("a", 100)}, Request{Price: 100}, "a"},
		"too small":       {[]Worker{worker("a", 99)}, Request{Price: 100}, "a/cpu: needs 100 px/s; of 99 px/s, 0 are reserved and unknown used"},
		"reserved":        {[]Worker{worker("a", 100, reserved(51))}, Request{Price: 50}, "51 are reserved"},
		"exactly full":    {[]Worker{worker("a", 100, reserved(50))}, Request{Price: 50}, "a"},
		"measured more":   {[]Worker{worker("a", 100, reserved(10), dev(func(d *capacity.Device) { d.Used = ptr[int64](60) }))}, Request{Price: 50}, "10 are reserved and 60 used"},
		"emptiest":        {[]Worker{worker("a", 100, reserved(10)), worker("b", 100)}, Request{Price: 50}, "b"},
		"by share":        {[]Worker{worker("a", 100), worker("b", 1000, reserved(300))}, Request{Price: 50}, "b"},
		"by name":         {[]Worker{worker("b", 100), worker("a", 100)}, Request{Price: 50}, "a"},
		"preferred":       {[]Worker{worker("a", 100), worker("b", 100, reserved(40))}, Request{Price: 50, Prefer: "b"}, "b"},
		"preferred full":  {[]Worker{worker("a", 100), worker("b", 100, reserved(60))}, Request{Price: 50, Prefer: "b"}, "a"},
		"avoided":         {[]Worker{worker("a", 100)}, Request{Price: 50, Avoid: []string{"a"}}, "a: avoided"},
		"lost":            {[]Worker{worker("a", 100, func(w *Worker) { w.Lost = true })}, Request{Price: 1}, "a: lost"},
		"silent":          {[]Worker{worker("a", 100, func(w *Worker) { w.HeartbeatAge = 4 * time.Second })}, Request{Price: 1}, "no heartbeat for 4.0 s, at most 3 s"},
		"draining":        {[]Worker{worker("a", 100, func(w *Worker) { w.Report.Drain = true })}, Request{Price: 1}, "draining"},
		"not ready":       {[]Worker{worker("a", 100, func(w *Worker) { w.Report.Ready, w.Report.Reason = false, "no gpac" })}, Request{Price: 1}, "not ready: no gpac"},
		"clock off":       {[]Worker{worker("a", 100, func(w *Worker) { w.Report.ClockErrorMillis = ptr(-250.0) })}, Request{Price: 1}, "-250 ms off, at most 200 ms"},
		"clock unknown":   {[]Worker{worker("a", 100, func(w *Worker) { w.Report.ClockErrorMillis = nil })}, Request{Price: 1}, "not been compared"},
		"no device":       {[]Worker{worker("a", 100, func(w *Worker) { w.Report.Devices = nil })}, Request{Price: 1}, "has no device"},
		"unusable device": {[]Worker{worker("a", 100, dev(func(d *capacity.Device) { d.Usable, d.Reason = false, "x264 failed" }))}, Request{Price: 1}, "not usable: x264 failed"},
		"unmeasured":      {[]Worker{worker("a", 100, dev(func(d *capacity.Device) { d.Capacity = nil }))}, Request{Price: 1}, "not been measured"},
		"gpu":             {[]Worker{worker("a", 100, dev(func(d *capacity.Device) { d.Kind = capacity.GPU }))}, Request{Price: 1}, "kind gpu"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d, err := Decide(Snapshot{Workers: c.workers}, c.req)
			if err == nil {
				if d.Worker != c.want || d.Boot != "b-"+c.want || d.Device != "cpu" {
					t.Fatalf("chose %+v, want %s", d, c.want)
				}
				return
			}
			if !errors.Is(err, stream.ErrNoRoom) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want ErrNoRoom with %q", err, c.want)
			}
		})
	}
}

// A decision fits what the snapshot shows, does not depend on the workers'
// order, changes nothing, and a refusal names every worker.
func TestDecideHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Snapshot
		for i := range rapid.IntRange(0, 6).Draw(t, "workers") {
			w := worker(fmt.Sprintf("w%d", i), rapid.Int64Range(1, 1000).Draw(t, "capacity"), reserved(rapid.Int64Range(0, 1200).Draw(t, "reserved")))
			w.Lost = rapid.IntRange(0, 9).Draw(t, "lost") == 0
			if rapid.Bool().Draw(t, "measured") {
				w.Report.Devices[0].Used = ptr(rapid.Int64Range(0, 1200).Draw(t, "used"))
			}
			s.Workers = append(s.Workers, w)
		}
		req := Request{Stream: "s", Price: rapid.Int64Range(1, 500).Draw(t, "price")}
		d, err := Decide(s, req)

		other := Snapshot{Workers: slices.Clone(s.Workers)}
		slices.Reverse(other.Workers)
		d2, err2 := Decide(other, req)
		if !reflect.DeepEqual(d, d2) || fmt.Sprint(err) != fmt.Sprint(err2) {
			t.Fatalf("the order matters: %+v (%v), %+v (%v)", d, err, d2, err2)
		}
		room := func(w Worker) bool {
			dev := w.Report.Devices[0]
			return !w.Lost && max(w.Ledger["cpu"]["other"], value(dev.Used))+req.Price <= *dev.Capacity
		}
		if err != nil {
			for _, w := range s.Workers {
				if room(w) {
					t.Fatalf("refused though %s has room: %v", w.Report.Worker, err)
				}
				if !strings.Contains(err.Error(), w.Report.Worker) {
					t.Fatalf("the refusal does not name %s: %v", w.Report.Worker, err)
				}
			}
			return
		}
		i := slices.IndexFunc(s.Workers, func(w Worker) bool { return w.Report.Worker == d.Worker })
		if !room(s.Workers[i]) || d.Limit != *s.Workers[i].Report.Devices[0].Capacity {
			t.Fatalf("chose %+v, which has no room", d)
		}
	})
}

// The reservation for an unknown source covers every source up to the nominal
// frame rate and the largest rung's size.
func TestPriceProfileCovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(stream.Builtins()).Draw(t, "profile")
		src := stream.SourceMedia{Video: &stream.SourceVideo{
			Width:  rapid.IntRange(16, p.Video[0].Width).Draw(t, "width"),
			Height: rapid.IntRange(16, p.Video[0].Height).Draw(t, "height"),
			FPS:    stream.Rate{Num: rapid.Int64Range(1, 30).Draw(t, "fps"), Den: 1},
		}}
		l, err := p.Ladder(src)
		if err != nil {
			t.Fatal(err)
		}
		// A rung may be a pixel wider than its box's own aspect by rounding.
		if got, limit := Price(l, src), PriceProfile(p); got > limit+limit/100 {
			t.Fatalf("%d is above the reserved %d: %+v", got, limit, l)
		}
	})
}

func TestPrice(t *testing.T) {
	src := stream.SourceMedia{Video: &stream.SourceVideo{Width: 1280, Height: 720, FPS: stream.Rate{Num: 60, Den: 1}}}
	one := stream.Ladder{Video: []stream.OutVideo{{Width: 640, Height: 360, FPS: stream.Rate{Num: 30, Den: 1}, FrameStep: 2, Preset: "veryfast"}}}
	if got, want := Price(one, src), int64(640*360*30+1280*720*60*47/100); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	slow := one
	slow.Video = []stream.OutVideo{one.Video[0]}
	slow.Video[0].Preset = "slow"
	if Price(slow, src) <= Price(one, src) {
		t.Error("slow is not dearer than veryfast")
	}
	if got := Price(stream.Ladder{Audio: []stream.OutAudio{{}}}, stream.SourceMedia{}); got != 1 {
		t.Errorf("audio alone costs %d, want 1", got)
	}
}
