package fleet

import (
	"math"
	"math/rand/v2"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
)

// Rival is a policy of another kind, with one number to tune. Rivals know what
// they would otherwise learn by failing: which device has a codec, and how many
// encoder sessions a system has left.
type Rival struct {
	Name string
	// Tries are the values of its threshold to choose from.
	Tries []float64
	// New makes the policy for a scenario, with a threshold.
	New func(s *Scenario, threshold float64) Policy
}

// Rivals lists the policies to compare with. docs/bench-placement.md names the
// systems that work so.
func Rivals() []Rival {
	slots := []float64{0.6, 0.7, 0.8, 1, 1.2}
	shares := []float64{0.4, 0.5, 0.6, 0.7, 0.8, 0.9}
	return []Rival{
		{"fewest sessions", slots, func(s *Scenario, t float64) Policy { return newSlots(s, t, nil) }},
		{"random free slot", slots, func(s *Scenario, t float64) Policy { return newSlots(s, t, rand.New(rand.NewPCG(s.Seed, 3))) }},
		{"least CPU", shares, func(_ *Scenario, t float64) Policy { return leastCPU{threshold: t} }},
		{"least px/s measured", shares, func(_ *Scenario, t float64) Policy { return leastPx{threshold: t} }},
	}
}

// forgetful is a policy that keeps no account of its own.
type forgetful struct{}

func (forgetful) Placed(float64, *Fleet, *Broadcast, Ref) {}
func (forgetful) Probed(_ float64, _ *Fleet, _ *Broadcast, at Ref) (Ref, bool) {
	return at, true
}
func (forgetful) Left(float64, *Fleet, *Broadcast, Ref) {}

// slots counts sessions: each device has so many slots, as a benchmark with the
// average stream would find, times the threshold. The stream goes to the device
// with the fewest sessions for its slots, or to any with a free one.
type slots struct {
	forgetful
	slots [][]float64 // by worker and device
	rng   *rand.Rand  // nil: the fewest sessions
}

func newSlots(s *Scenario, threshold float64, rng *rand.Rand) *slots {
	cpu, gpu := average(s, capacity.CPU), average(s, capacity.GPU)
	p := &slots{rng: rng}
	for _, w := range build(s.Machines, rand.New(rand.NewPCG(s.Seed, 2))) {
		left := w.CPU().Budget
		list := make([]float64, len(w.Devices))
		for i, d := range w.Devices {
			if i == 0 || !d.Usable {
				continue
			}
			n := min(d.Budget/float64(gpu.Px), left/float64(gpu.HostPx)/float64(len(w.Devices)-1))
			if d.Limited {
				n = min(n, sessionCap/meanSessions(s))
			}
			left -= n * float64(gpu.HostPx)
			list[i] = max(1, math.Round(n*threshold))
		}
		list[0] = math.Round(max(0, left) / float64(cpu.Px) * threshold)
		p.slots = append(p.slots, list)
	}
	return p
}

// average is what the scenario's streams cost on average.
func average(s *Scenario, k capacity.Kind) placement.Cost {
	var sum placement.Cost
	for i := range s.Broadcasts {
		sum.Px += s.Broadcasts[i].Real[k].Px
		sum.HostPx += s.Broadcasts[i].Real[k].HostPx
	}
	n := int64(max(1, len(s.Broadcasts)))
	sum.Px, sum.HostPx = sum.Px/n, sum.HostPx/n
	return sum
}

func meanSessions(s *Scenario) float64 {
	sum := 0
	for i := range s.Broadcasts {
		sum += s.Broadcasts[i].Real[capacity.GPU].Sessions
	}
	return float64(sum) / float64(max(1, len(s.Broadcasts)))
}

// Pick implements Policy.
func (p *slots) Pick(_ float64, f *Fleet, b *Broadcast, _ bool) (Ref, bool) {
	best, least, free := Ref{}, math.Inf(1), 0
	for i, w := range f.Workers {
		for j, d := range w.Devices {
			at := Ref{i, j}
			n := p.slots[i][j]
			if float64(d.Streams) >= n || !f.Able(at, b) {
				continue
			}
			free++
			full := float64(d.Streams) / n
			if p.rng != nil {
				// The nth free one replaces the choice with probability 1/n.
				full = -p.rng.Float64()
				if p.rng.IntN(free) != 0 {
					continue
				}
				least = math.Inf(1)
			}
			if full < least {
				best, least = at, full
			}
		}
	}
	return best, free > 0
}

// leastCPU goes to the worker whose CPU is measured least busy, unless that is
// above the threshold: there to a card that can take it, or else to the CPU.
type leastCPU struct {
	forgetful
	threshold float64
}

// Pick implements Policy.
func (p leastCPU) Pick(now float64, f *Fleet, b *Broadcast, _ bool) (Ref, bool) {
	best, least, ok := Ref{}, p.threshold, false
	for i, w := range f.Workers {
		share := w.CPU().Meter.Measured(now) / w.CPU().True
		if share >= least {
			continue
		}
		for j := len(w.Devices) - 1; j >= 0; j-- {
			d := w.Devices[j]
			if f.Able(Ref{i, j}, b) && (j == 0 || d.Meter.Measured(now)/d.True < p.threshold) {
				best, least, ok = Ref{i, j}, share, true
				break
			}
		}
	}
	return best, ok
}

// leastPx goes to the device with the smallest share of its px/s measured in use,
// where what is measured and the stream's price together stay below the
// threshold, on the device and on its host. It is Dionysia without reservations.
type leastPx struct {
	forgetful
	threshold float64
}

// Pick implements Policy.
func (p leastPx) Pick(now float64, f *Fleet, b *Broadcast, _ bool) (Ref, bool) {
	best, least, ok := Ref{}, math.Inf(1), false
	for i, w := range f.Workers {
		host := w.CPU()
		hostPx := host.Meter.Measured(now)
		for j, d := range w.Devices {
			at := Ref{i, j}
			if !f.Able(at, b) {
				continue
			}
			c := b.Asked[d.Kind]
			used := d.Meter.Measured(now)
			if used+float64(c.Px) > p.threshold*d.True || hostPx+float64(c.HostPx) > p.threshold*host.True {
				continue
			}
			if share := used / d.True; share < least {
				best, least, ok = at, share, true
			}
		}
	}
	return best, ok
}
