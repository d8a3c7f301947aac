package placement

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// Simulated streams never overbook anything, whatever the fleet holds.
func TestSimulateHolds(t *testing.T) {
	n, placed := 0, 0
	t.Cleanup(func() { t.Logf("%d cases, %d streams placed", n, placed) })
	rapid.Check(t, func(t *rapid.T) {
		n++
		s, r := drawFleet(t), drawRequest(t)
		before := s.Clone()
		list, err := Simulate(s, r, rapid.IntRange(1, 60).Draw(t, "count"))
		if !reflect.DeepEqual(s.Workers, before.Workers) {
			t.Fatal("the snapshot changed")
		}
		if err != nil && !errors.Is(err, stream.ErrNoRoom) {
			t.Fatal(err)
		}
		for _, d := range list {
			placed++
			w := before.worker(d.Worker)
			if text := over(w, d, r.Failover, s.Policy.Reserve); text != "" {
				t.Fatal(text)
			}
			for _, res := range d.Reserved {
				w.Ledger[res.Resource] = w.Ledger[res.Resource].plus(res.Amount)
			}
		}
	})
	for _, count := range []int{0, -1, MaxSimulate + 1} {
		if _, err := Simulate(&Snapshot{}, Request{}, count); !errors.Is(err, stream.ErrInvalid) {
			t.Errorf("count %d: %v", count, err)
		}
	}
}

// A ladder loses its top rungs one by one, keeps one, and gets them back when
// there is room.
func TestDegradeAndRestore(t *testing.T) {
	for px, want := range map[int64]string{
		200_000_000: "1080p 720p 480p 360p -",
		100_000_000: "720p 480p 360p - 1080p",
		30_000_000:  "480p 360p - 1080p 720p",
		12_000_000:  "360p - 1080p 720p 480p",
	} {
		s := &Snapshot{Workers: []Worker{cpuWorker("a", px)}}
		r := Request{Stream: "s", Profile: builtin("1080p"), Degrade: true}
		d, err := Decide(s, r)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, v := range d.Profile.Video {
			got = append(got, v.Name)
		}
		got = append(got, "-")
		for _, v := range d.Dropped {
			got = append(got, v.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("of %d px/s: %s, want %s", px, strings.Join(got, " "), want)
		}
		s.Apply(d)
		p := Placed{Request: r, Worker: "a", Device: "cpu", Reserved: d.Reserved, Degraded: len(d.Dropped) > 0}
		if _, ok := Restore(s, p); ok {
			t.Errorf("of %d px/s: restored without room", px)
		}
		s.Put(cpuWorker("b", 300_000_000))
		if again, ok := Restore(s, p); ok != p.Degraded || ok && (again.Worker != "b" || len(again.Dropped) > 0) {
			t.Errorf("of %d px/s: %v %+v", px, ok, again)
		}
	}
	_, err := Decide(&Snapshot{Workers: []Worker{cpuWorker("a", 10_000_000)}}, Request{Profile: builtin("1080p"), Degrade: true})
	if err == nil || !strings.Contains(err.Error(), "nor is there room with fewer rungs") {
		t.Errorf("got %v", err)
	}
}

// In place, a restored stream's own reservation makes room.
func TestRestoreInPlace(t *testing.T) {
	s := &Snapshot{Workers: []Worker{cpuWorker("a", 100_000_000, held("cpu", 40_000_000), dev(func(d *capacity.Device) { d.Used = ptr(int64(40_000_000)) }))}}
	p := Placed{Request: Request{Stream: "s", Profile: builtin("720p")}, Worker: "a", Device: "cpu", Degraded: true, Age: time.Hour,
		Reserved: []stream.Reservation{{Resource: "cpu", Amount: 26_000_000}}}
	d, ok := Restore(s, p)
	if !ok || d.Worker != "a" || len(d.Dropped) > 0 || *d.Limits[0].Used != 14_000_000 {
		t.Errorf("%v %+v", ok, d)
	}
}

func TestRebalance(t *testing.T) {
	const m = 1_000_000
	on := func(id, worker string, px int64, age time.Duration) Placed {
		p := seat(id, worker, px, 50, age)
		p.Request.Profile = builtin("720p")
		return p
	}
	policy := RebalancePolicy{Moves: 5, Margin: 0.25, MinStay: time.Minute}
	old := time.Hour
	cases := map[string]struct {
		workers []Worker
		placed  []Placed
		pack    bool
		edit    func(*RebalancePolicy)
		want    string
	}{
		"a gpu returned":  {[]Worker{cpuWorker("a", 500*m), cpuWorker("b", 500*m, gpu("gpu-0", 900*m))}, []Placed{on("s", "a", 67*m, old)}, false, nil, "s>b/gpu-0 tier"},
		"packing, too":    {[]Worker{cpuWorker("a", 500*m), cpuWorker("b", 500*m, gpu("gpu-0", 900*m))}, []Placed{on("s", "a", 67*m, old)}, true, nil, "s>b/gpu-0 tier"},
		"a gpu all full":  {[]Worker{cpuWorker("a", 500*m), cpuWorker("b", 500*m, gpu("gpu-0", 900*m), held("gpu-0", 700*m))}, []Placed{on("s", "a", 67*m, old)}, false, nil, ""},
		"the emptier gpu": {[]Worker{cpuWorker("a", 500*m), cpuWorker("b", 500*m, gpu("gpu-0", 900*m), held("gpu-0", 700*m), gpu("gpu-1", 900*m))}, []Placed{on("s", "a", 67*m, old)}, true, nil, "s>b/gpu-1 tier"},
		"too young":       {[]Worker{cpuWorker("a", 500*m), cpuWorker("b", 500*m, gpu("gpu-0", 900*m))}, []Placed{on("s", "a", 67*m, time.Second)}, false, nil, ""},
		"off":             {[]Worker{cpuWorker("a", 500*m), cpuWorker("b", 500*m, gpu("gpu-0", 900*m))}, []Placed{on("s", "a", 67*m, old)}, false, func(p *RebalancePolicy) { p.Moves = 0 }, ""},
		"budget":          {[]Worker{cpuWorker("a", 500*m), cpuWorker("b", 500*m, gpu("gpu-0", 900*m))}, []Placed{on("s", "a", 67*m, old), on("t", "a", 67*m, 2*old)}, false, func(p *RebalancePolicy) { p.Moves = 1 }, "t>b/gpu-0 tier"},
		"much emptier":    {[]Worker{cpuWorker("a", 300*m), cpuWorker("b", 300*m)}, []Placed{on("s", "a", 67*m, old), on("t", "a", 67*m, old), on("u", "a", 67*m, old)}, false, nil, "s>b/cpu share"},
		"hardly emptier":  {[]Worker{cpuWorker("a", 300*m), cpuWorker("b", 300*m)}, []Placed{on("s", "a", 67*m, old), on("t", "a", 67*m, old)}, false, nil, ""},
		"packed stays":    {[]Worker{cpuWorker("a", 300*m), cpuWorker("b", 300*m)}, []Placed{on("s", "a", 67*m, old), on("t", "a", 67*m, old), on("u", "a", 67*m, old)}, true, nil, ""},
		"lost worker":     {[]Worker{cpuWorker("a", 300*m, func(w *Worker) { w.Lost = true }), cpuWorker("b", 300*m, gpu("gpu-0", 900*m))}, []Placed{on("s", "a", 67*m, old)}, false, nil, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := seated(&Snapshot{Workers: c.workers, Policy: Policy{Pack: c.pack}}, c.placed)
			p := policy
			if c.edit != nil {
				c.edit(&p)
			}
			var got []string
			for _, m := range Rebalance(s, c.placed, p) {
				got = append(got, m.Stream+">"+m.To.Worker+"/"+m.To.Device+" "+m.Gain)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q", strings.Join(got, " "), c.want)
			}
		})
	}
	t.Run("preferred", func(t *testing.T) {
		p := on("s", "a", 67*m, old)
		p.Request.Prefer = []stream.Rule{"class=x"}
		s := seated(&Snapshot{Workers: []Worker{cpuWorker("a", 500*m), cpuWorker("b", 500*m, label("class", "x"))}}, []Placed{p})
		if moves := Rebalance(s, []Placed{p}, policy); len(moves) != 1 || moves[0].Gain != "prefer" || moves[0].To.Worker != "b" {
			t.Errorf("%+v", moves)
		}
	})
}

// Moves keep to the budget, overbook nothing, leave young and degraded ones
// alone, and when they are made none leads straight back.
func TestRebalanceHolds(t *testing.T) {
	n, moved := 0, 0
	t.Cleanup(func() { t.Logf("%d cases, %d moves", n, moved) })
	rapid.Check(t, func(t *rapid.T) {
		n++
		s := drawFleet(t)
		placed := drawSeats(t, s, 14)
		for range rapid.IntRange(0, 2).Draw(t, "returned") { // better devices return
			w := cpuWorker(rapid.SampledFrom([]string{"x", "y"}).Draw(t, "name"), 500_000_000, gpu("gpu-back", 1_000_000_000), label("class", "b"))
			s.Put(w)
		}
		p := RebalancePolicy{Moves: rapid.IntRange(0, 3).Draw(t, "moves"), Margin: 0.25, MinStay: 5 * time.Minute}
		moves := Rebalance(s, placed, p)
		if len(moves) > p.Moves {
			t.Fatalf("%d moves, at most %d", len(moves), p.Moves)
		}
		c := s.Clone()
		for _, m := range moves {
			moved++
			i := slices.IndexFunc(placed, func(p Placed) bool { return p.Request.Stream == m.Stream })
			if placed[i].Age < p.MinStay || placed[i].Degraded || (m.To.Worker == placed[i].Worker && m.To.Device == placed[i].Device) {
				t.Fatalf("moved %+v to %+v", placed[i], m.To)
			}
			// Another device of the same worker gives back what both share first.
			c.Return(m.From)
			if text := over(c.worker(m.To.Worker), m.To, false, s.Policy.Reserve); text != "" && m.To.Worker != m.From.Worker {
				t.Fatal(text)
			}
			c.Apply(m.To)
			ripen(c, m.To.Worker, m.To.Reserved)
			placed[i].Worker, placed[i].Device, placed[i].Reserved, placed[i].Age = m.To.Worker, m.To.Device, m.To.Reserved, 0
		}
		for _, m := range moves { // nothing else having changed
			i := slices.IndexFunc(placed, func(p Placed) bool { return p.Request.Stream == m.Stream })
			placed[i].Age = time.Hour
			if back := Rebalance(c, placed[i:i+1], RebalancePolicy{Moves: 1, Margin: 0.25}); len(back) > 0 && back[0].To.Worker == m.From.Worker && back[0].To.Device == m.Device {
				t.Fatalf("%s goes back to %s/%s: %s after %s", m.Stream, m.From.Worker, m.Device, back[0].Gain, m.Gain)
			}
		}
	})
}

func TestExplain(t *testing.T) {
	s := &Snapshot{Policy: Policy{Reserve: 0.1}, Workers: []Worker{
		cpuWorker("a", 500_000_000, held("cpu", 10_000_000), gpu("gpu-0", 900_000_000, geforce), sessionLimit(8)),
		cpuWorker("b", 500_000_000, label("class", "x")), cpuWorker("c", 1, func(w *Worker) { w.Lost = true }),
		cpuWorker("d", 1, func(w *Worker) { w.Report.Devices = nil })}}
	r := Request{Stream: "s", Profile: builtin("720p"), Prefer: []stream.Rule{"class=x"}}
	e, err := Explain(s, r)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range e.Devices {
		got = append(got, d.Worker+"/"+d.Device+":"+d.Reason.String())
	}
	if want := "b/cpu:fits a/gpu-0:fits a/cpu:fits c/cpu:lost d/:no_device"; strings.Join(got, " ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, " "), want)
	}
	if d, err := Decide(s, r); err != nil || e.Decision == nil || !reflect.DeepEqual(d, *e.Decision) || e.Devices[0].Rank != 1 || e.Devices[3].Rank != 0 {
		t.Errorf("decided %+v (%v), explained %+v", d, err, e.Decision)
	}
	if !slices.Equal(e.Devices[0].Preferred, r.Prefer) || e.Devices[1].Preferred != nil {
		t.Errorf("preferred: %v, %v", e.Devices[0].Preferred, e.Devices[1].Preferred)
	}
	resources := e.Devices[1].Resources
	if len(resources) != 4 || resources[3].Resource != "cpu" || *resources[3].Limit != 500_000_000 || *resources[3].Open != 450_000_000 || resources[3].Held != 10_000_000 {
		t.Errorf("resources of gpu-0: %+v", resources)
	}
	text, err := json.Marshal(e)
	if err != nil || !strings.Contains(string(text), `"reason":"no_device"`) {
		t.Errorf("%v: %s", err, text)
	}
}

// Explain and Decide agree, and each refused device has words and a code.
func TestExplainAgrees(t *testing.T) {
	n := 0
	cases(t, &n)
	rapid.Check(t, func(t *rapid.T) {
		n++
		s, r := drawFleet(t), drawRequest(t)
		d, err := Decide(s, r)
		e, _ := Explain(s, r)
		if (err == nil) != (e.Decision != nil) || err == nil && !reflect.DeepEqual(d, *e.Decision) {
			t.Fatalf("%v, %+v", err, e.Decision)
		}
		for _, v := range e.Devices {
			var back Reason
			text, _ := v.Reason.MarshalText()
			if back.UnmarshalText(text) != nil || back != v.Reason || v.Text == "" || (v.Reason == Fits) != (v.Score != nil) || (v.Rank > 0) != (v.Score != nil) {
				t.Fatalf("%+v", v)
			}
		}
		if err == nil && (e.Devices[0].Worker != d.Worker || e.Devices[0].Device != d.Device) {
			t.Fatalf("first is %+v, chosen %+v", e.Devices[0], d)
		}
	})
}

// A refusal by many devices stays short and counts them all.
func TestRefusalIsBounded(t *testing.T) {
	s := &Snapshot{}
	for i := range 500 {
		s.Workers = append(s.Workers, cpuWorker("w"+strings.Repeat("x", i%20)+string(rune('a'+i%26))+time.Duration(i).String(), int64(i)*100_000))
	}
	_, err := Decide(s, Request{Stream: "s", Profile: builtin("720p")})
	no, ok := errors.AsType[*NoRoomError](err)
	if !ok || len(no.Telling) != 8 || len(no.Verdicts()) != 500 || len(err.Error()) > 2000 {
		t.Fatalf("%d bytes: %v", len(err.Error()), err)
	}
	if no.Telling[0].Limit != 49_900_000 || !strings.HasSuffix(err.Error(), "and 492 more (1 unmeasured, 42 session_too_wide, 449 px)") && !strings.HasSuffix(err.Error(), "and 492 more (1 unmeasured, 491 px)") {
		t.Errorf("%v", err)
	}
}
