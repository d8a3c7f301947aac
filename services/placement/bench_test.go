package placement

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// benchFleet has that many devices: of each 10 workers, two have a CPU alone and
// eight a CPU and one to four cards; half of it is taken.
func benchFleet(devices int) *Snapshot {
	s := &Snapshot{Policy: DefaultPolicy()}
	for i, n := 0, 0; n < devices; i++ {
		id := fmt.Sprintf("worker-%05d", i)
		w := cpuWorker(id, 400_000_000, held("cpu", int64(i%7)*20_000_000), label("class", fmt.Sprint(i%5)), label("datacenter", fmt.Sprint(i%3)))
		n++
		for j := range max(0, i%10-1) % 5 {
			card := fmt.Sprintf("gpu-%08x-0000-0000-0000-%012x", i, j)
			gpu(card, 2_000_000_000, func(d *capacity.Device) {
				d.Used = ptr(int64(100_000_000 * (i%11 + j)))
				if i%4 == 0 {
					geforce(d)
				}
			})(&w)
			held(card, int64(i%13)*100_000_000)(&w)
			held(capacity.MemoryResource(card), int64(i%13)<<30)(&w)
			n++
		}
		if i%4 == 0 {
			sessionLimit(12)(&w)
		}
		s.Workers = append(s.Workers, w)
	}
	return s
}

func BenchmarkDecide(b *testing.B) {
	p := builtin("720p")
	for _, n := range []int{10, 1000, 10000} {
		for name, r := range map[string]Request{
			"plain": {Stream: "s", Profile: p},
			"rules": {Stream: "s", Profile: p, Require: []stream.Rule{"class!=1"}, Prefer: []stream.Rule{"datacenter=1", "device=gpu"}, Stay: "worker-00003"},
		} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				s := benchFleet(n)
				s.compiled()
				b.ReportAllocs()
				start := cpuTime(b)
				for b.Loop() {
					d, err := Decide(s, r)
					if err != nil {
						b.Fatal(err)
					}
					s.Apply(d)
					s.Return(Own{Worker: d.Worker, Reserved: d.Reserved, Young: true})
				}
				b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// cpuTime is what the process has used of the CPUs: on a busy machine it says
// more than the wall clock.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// A refusal is the dearest decision: each rung less is tried on every device.
func BenchmarkRefuse(b *testing.B) {
	s := benchFleet(10000)
	for i := range s.Workers {
		for j := range s.Workers[i].Report.Devices {
			s.Workers[i].Ledger[s.Workers[i].Report.Devices[j].ID] = Load{Reserved: 3_000_000_000}
		}
	}
	s.compiled()
	for _, degrade := range []bool{false, true} {
		b.Run(fmt.Sprintf("degrade=%v", degrade), func(b *testing.B) {
			b.ReportAllocs()
			start := cpuTime(b)
			for b.Loop() {
				clear(s.view.refused)
				if _, err := Decide(s, Request{Stream: "s", Profile: builtin("1080p"), Degrade: degrade}); err == nil {
					b.Fatal("there is room")
				}
			}
			b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
		})
	}
}

// The same again, as the next stream of a queue asks.
func BenchmarkRefuseAgain(b *testing.B) {
	s := benchFleet(10000)
	r := Request{Stream: "s", Profile: builtin("1080p"), Require: []stream.Rule{"class=none"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decide(s, r); err == nil {
			b.Fatal("there is room")
		}
	}
}

// 100,000 placements on 10,000 devices, one of which has to go.
func BenchmarkPreempt(b *testing.B) {
	s := benchFleet(10000)
	var placed []Placed
	for i := range s.Workers {
		w := &s.Workers[i]
		for j := range w.Report.Devices {
			d := &w.Report.Devices[j]
			d.Used = nil
			px := *d.Capacity / 10
			for k := range 10 {
				placed = append(placed, Placed{Request: Request{Stream: fmt.Sprintf("%d-%d-%d", i, j, k), Priority: 40 + (i+j+k)%20}, Worker: w.Report.Worker, Device: d.ID,
					Age: time.Hour, Reserved: []stream.Reservation{{Resource: d.ID, Amount: px}}})
			}
			w.Ledger[d.ID] = Load{Reserved: px * 10, Streams: 10}
		}
	}
	r := Request{Stream: "s", Priority: 50, Profile: builtin("1080p")}
	for b.Loop() {
		victims, _, ok := Preempt(s, placed, r)
		if !ok || len(victims) == 0 {
			b.Fatalf("%v %d victims", ok, len(victims))
		}
	}
	b.ReportMetric(float64(len(placed)), "placed")
}

// Put is what a heartbeat costs.
func BenchmarkPut(b *testing.B) {
	s := benchFleet(10000)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		s.Put(s.Workers[i%len(s.Workers)])
		i++
	}
}
