package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/services/stream"
)

// seat is a placement on a worker's CPU.
func seat(id, worker string, px int64, priority int, age time.Duration) Placed {
	return Placed{Request: Request{Stream: id, Priority: priority, Profile: builtin("240p")}, Worker: worker, Device: "cpu", Age: age,
		Reserved: []stream.Reservation{{Resource: "cpu", Amount: px}}}
}

// seated makes the ledgers of a snapshot hold the placements.
func seated(s *Snapshot, list []Placed) *Snapshot {
	for _, p := range list {
		w := s.worker(p.Worker)
		for _, r := range p.Reserved {
			l := w.Ledger[r.Resource].plus(r.Amount)
			if !p.own().Young {
				l.Young -= r.Amount
			}
			w.Ledger[r.Resource] = l
		}
	}
	s.view = nil
	return s
}

func TestPreempt(t *testing.T) {
	const m = 1_000_000
	big := Request{Stream: "s", Priority: 80, Profile: builtin("720p")} // 67 Mpx/s
	at := func(id, worker string, px int64, priority int) Placed {
		return seat(id, worker, px, priority, time.Hour)
	}
	cases := map[string]struct {
		placed []Placed
		want   string // victims and the device, "" for none, "-" when it fits anyway
	}{
		"fits":             {[]Placed{at("a", "w", 20*m, 1)}, "- v/cpu"},
		"one":              {[]Placed{at("a", "w", 90*m, 1), at("b", "v", 90*m, 80)}, "a w/cpu"},
		"equal priority":   {[]Placed{at("a", "w", 90*m, 80), at("b", "v", 90*m, 90)}, ""},
		"the lowest":       {[]Placed{at("a", "w", 90*m, 7), at("b", "v", 90*m, 5)}, "b v/cpu"},
		"the youngest":     {[]Placed{at("a", "w", 50*m, 5), seat("c", "w", 50*m, 5, time.Minute), at("b", "v", 90*m, 80)}, "c a w/cpu"},
		"youngest of two":  {[]Placed{at("a", "w", 45*m, 5), seat("c", "w", 45*m, 5, time.Minute), at("b", "v", 90*m, 80)}, "c a w/cpu"},
		"fewest":           {[]Placed{at("a", "w", 30*m, 1), at("b", "w", 30*m, 1), at("c", "w", 30*m, 1), at("d", "v", 90*m, 70)}, "d v/cpu"},
		"not from two":     {[]Placed{at("a", "w", 50*m, 80), at("b", "w", 40*m, 1), at("c", "v", 50*m, 80), at("d", "v", 40*m, 1)}, ""},
		"one that is old":  {[]Placed{at("a", "w", 60*m, 5), seat("c", "w", 30*m, 5, time.Minute), at("b", "v", 99*m, 80)}, "a w/cpu"},
		"not the stream's": {[]Placed{at("s", "w", 90*m, 1), at("b", "v", 90*m, 80)}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := seated(&Snapshot{Workers: []Worker{cpuWorker("v", 100*m), cpuWorker("w", 100*m)}}, c.placed)
			victims, d, ok := Preempt(s, c.placed, big)
			got := ""
			if ok {
				var list []string
				for _, v := range victims {
					list = append(list, v.Request.Stream)
				}
				if len(list) == 0 {
					list = []string{"-"}
				}
				got = strings.Join(list, " ") + " " + d.Worker + "/" + d.Device
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// drawSeats fills a fleet with placements that Decide chose.
func drawSeats(t *rapid.T, s *Snapshot, most int) []Placed {
	var list []Placed
	for i := range rapid.IntRange(0, most).Draw(t, "placed") {
		r := drawRequest(t)
		r.Stream = fmt.Sprintf("p%02d", i)
		d, err := Decide(s, r)
		if err != nil {
			continue
		}
		s.Apply(d)
		p := Placed{Request: r, Worker: d.Worker, Device: d.Device, Reserved: d.Reserved, Degraded: len(d.Dropped) > 0,
			Age: time.Duration(rapid.IntRange(0, 1000).Draw(t, "age")) * time.Second}
		if !p.own().Young {
			ripen(s, p.Worker, p.Reserved)
		}
		list = append(list, p)
	}
	return list
}

// ripen makes reservations old enough to be measured.
func ripen(s *Snapshot, worker string, reserved []stream.Reservation) {
	w := s.worker(worker)
	for _, res := range reserved {
		l := w.Ledger[res.Resource]
		l.Young = max(0, l.Young-res.Amount)
		w.Ledger[res.Resource] = l
	}
	s.Put(*w)
}

// Victims are of lower priority, of one device, enough, and no fewer nor lower
// ones would do: by trying every choice.
func TestPreemptHolds(t *testing.T) {
	n, found := 0, 0
	t.Cleanup(func() { t.Logf("%d cases, %d of them with victims", n, found) })
	rapid.Check(t, func(t *rapid.T) {
		n++
		s := drawFleet(t)
		placed := drawSeats(t, s, 14)
		r := drawRequest(t)
		r.Priority = rapid.SampledFrom([]int{50, 100}).Draw(t, "at")
		victims, d, ok := Preempt(s, placed, r)
		size, highest := bruteForce(s, placed, r)
		if !ok {
			if size >= 0 {
				t.Fatalf("no victims, but %d of priority up to %d would do", size, highest)
			}
			return
		}
		top := 0
		for _, v := range victims {
			top = max(top, v.Request.Priority)
			if v.Request.Priority >= r.Priority || v.Worker != d.Worker || v.Device != d.Device {
				t.Fatalf("victim %+v for priority %d on %s/%s", v, r.Priority, d.Worker, d.Device)
			}
		}
		if len(victims) > 0 {
			found++
		}
		if len(victims) != size || top != highest {
			t.Fatalf("%d victims up to priority %d; %d up to %d would do", len(victims), top, size, highest)
		}
		if !fitsWithout(s, victims, r, d.Worker+"/"+d.Device) {
			t.Fatalf("%+v does not fit when they are gone", d)
		}
	})
}

// fitsWithout decides on one device of a snapshot made anew without the victims.
func fitsWithout(s *Snapshot, victims []Placed, r Request, at string) bool {
	c := s.Clone()
	r.Degrade = false
	for i := range c.Workers {
		w := &c.Workers[i]
		w.Report.Devices = slices.Clone(w.Report.Devices)
		for _, v := range victims {
			if v.Worker != w.Report.Worker {
				continue
			}
			for _, res := range v.Reserved {
				l, _ := w.Report.Limit(res.Resource)
				load, used := w.Ledger[res.Resource].Less(res.Amount, v.own().Young, l.Used)
				w.Ledger[res.Resource] = load
				for j := range w.Report.Devices {
					d := &w.Report.Devices[j]
					if d.ID == res.Resource {
						d.Used = used
					} else if d.ID+"/memory" == res.Resource && d.GPU.MemoryTotal != nil {
						g := *d.GPU
						g.MemoryUsed, d.GPU = used, &g
					}
				}
			}
		}
		for _, d := range w.Report.Devices {
			if w.Report.Worker+"/"+d.ID != at {
				r.Avoid = append(r.Avoid, w.Report.Worker+"/"+d.ID)
			}
		}
	}
	_, err := Decide(c, r)
	return err == nil
}

// bruteForce is the least number of victims on one device and, of as many, the
// lowest highest priority; -1 when there is no choice.
func bruteForce(s *Snapshot, placed []Placed, r Request) (size, highest int) {
	rr := r
	rr.Degrade = false
	if _, err := Decide(s.Clone(), rr); err == nil {
		return 0, 0
	}
	byDevice := map[string][]Placed{}
	for _, p := range placed {
		if p.Request.Priority < r.Priority {
			at := p.Worker + "/" + p.Device
			byDevice[at] = append(byDevice[at], p)
		}
	}
	size, highest = -1, 0
	for at, list := range byDevice {
		for mask := 1; mask < 1<<len(list); mask++ {
			var chosen []Placed
			top := 0
			for i, p := range list {
				if mask&(1<<i) != 0 {
					chosen = append(chosen, p)
					top = max(top, p.Request.Priority)
				}
			}
			if len(chosen) > MaxVictims || (size >= 0 && (len(chosen) > size || len(chosen) == size && top >= highest)) {
				continue
			}
			if fitsWithout(s, chosen, r, at) {
				size, highest = len(chosen), top
			}
		}
	}
	return size, highest
}
