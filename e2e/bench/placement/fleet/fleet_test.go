package fleet_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/dionysia-dev/dionysia/e2e/bench/placement/fleet"
	"github.com/dionysia-dev/dionysia/services/placement"
)

// small is a fleet of a few machines, and a day for it that fills it.
func small(seed uint64, peak int) *fleet.Scenario {
	machines := fleet.Mixed()
	for i := range machines {
		machines[i].Count = 2
	}
	return fleet.Day(seed, peak, machines)
}

func policies(s *fleet.Scenario) map[string]fleet.Policy {
	all := map[string]fleet.Policy{"dionysia": fleet.NewDionysia(placement.DefaultPolicy())}
	for _, r := range fleet.Rivals() {
		all[r.Name] = r.New(s, r.Tries[len(r.Tries)/2])
	}
	return all
}

func TestTheSameSeedMakesTheSameDay(t *testing.T) {
	a, b := small(7, 200), small(7, 200)
	again := policies(b)
	for name, p := range policies(a) {
		first, second := fleet.Run(a, p), fleet.Run(b, again[name])
		if !first.Equal(second) {
			t.Errorf("%s: %+v, then %+v", name, first, second)
		}
	}
	other := small(8, 200)
	if p := "dionysia"; fleet.Run(a, policies(a)[p]).Equal(fleet.Run(other, policies(other)[p])) {
		t.Error("another seed makes the same day")
	}
}

// watch checks what a policy is told: that every stream that is placed leaves
// once, and never sits on two devices.
type watch struct {
	fleet.Policy
	seat   map[int]fleet.Ref
	wrong  error
	placed int
}

func (w *watch) Placed(now float64, f *fleet.Fleet, b *fleet.Broadcast, at fleet.Ref) {
	if _, twice := w.seat[b.ID]; twice {
		w.wrong = errors.Join(w.wrong, errors.New("placed twice"))
	}
	if now < b.Start || now > b.Start+b.Length {
		w.wrong = errors.Join(w.wrong, errors.New("placed before its start or after its end"))
	}
	w.placed++
	w.seat[b.ID] = at
	w.Policy.Placed(now, f, b, at)
}

func (w *watch) Probed(now float64, f *fleet.Fleet, b *fleet.Broadcast, at fleet.Ref) (fleet.Ref, bool) {
	if w.seat[b.ID] != at {
		w.wrong = errors.Join(w.wrong, errors.New("probed elsewhere"))
	}
	to, ok := w.Policy.Probed(now, f, b, at)
	if ok {
		w.seat[b.ID] = to
	}
	return to, ok
}

func (w *watch) Left(now float64, f *fleet.Fleet, b *fleet.Broadcast, at fleet.Ref) {
	if was, ok := w.seat[b.ID]; !ok || was != at {
		w.wrong = errors.Join(w.wrong, errors.New("left where it was not"))
	}
	delete(w.seat, b.ID)
	w.Policy.Left(now, f, b, at)
}

func TestEveryStartEndsInOneWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := small(rapid.Uint64Range(1, 1000).Draw(t, "seed"), rapid.SampledFrom([]int{20, 150, 400}).Draw(t, "peak"))
		for name, p := range policies(s) {
			w := &watch{Policy: p, seat: map[int]fleet.Ref{}}
			r := fleet.Run(s, w)
			switch {
			case w.wrong != nil:
				t.Fatalf("%s: %v", name, w.wrong)
			case len(w.seat) != 0:
				t.Fatalf("%s: %d streams never left", name, len(w.seat))
			case r.Starts != len(s.Broadcasts) || r.Placed+r.Refused != r.Starts:
				t.Fatalf("%s: %d of %d started, %d placed and %d refused", name, r.Starts, len(s.Broadcasts), r.Placed, r.Refused)
			case w.placed != r.Placed+r.Replaced:
				t.Fatalf("%s: placed %d times; %d placed and %d placed anew", name, w.placed, r.Placed, r.Replaced)
			case r.Replaced+r.GaveUp+r.EndedMeanwhile != r.Displaced || r.EndedMeanwhile < 0:
				t.Fatalf("%s: of %d displaced %d placed anew, %d given up, %d ended", name, r.Displaced, r.Replaced, r.GaveUp, r.EndedMeanwhile)
			case r.Slowed+r.GaveUp+r.RefusedLater > r.Placed:
				t.Fatalf("%s: more went wrong than were placed: %+v", name, r)
			}
		}
	})
}

// Twelve streams start within a second on four idle workers, each with room for
// two of them in its budget: four are too many. What is measured shows none of
// them yet.
func TestMeasurementsAloneOverloadInABurst(t *testing.T) {
	s := fleet.Burst(12, []fleet.Machine{{Name: "cpu10", Count: 4, Cores: 10}})
	for name, p := range policies(s) {
		r := fleet.Run(s, p)
		t.Logf("%s: %d refused, %d slowed, %.0f device-seconds of overload", name, r.Refused, r.Slowed, r.Overload)
		switch name {
		case "dionysia":
			if r.Refused != 4 || r.Slowed != 0 || r.Overload != 0 {
				t.Errorf("%s: %d refused and %d slowed, want 4 and 0", name, r.Refused, r.Slowed)
			}
		case "least CPU", "least px/s measured":
			if r.Refused != 0 || r.Slowed == 0 || r.Overload == 0 {
				t.Errorf("%s refused %d and slowed %d: want 0, and some", name, r.Refused, r.Slowed)
			}
		}
	}
}

// On one card with room for the small ones, HEVC that only the card can do must
// not be refused for H.264 that CPUs can do as well.
func TestCardsAreKeptForWhatOnlyTheyCanDo(t *testing.T) {
	s := fleet.Day(3, 60, []fleet.Machine{
		{Name: "l4", Count: 1, Cores: 32, Cards: 2, Card: fleet.Card{Name: "L4", Engines: 2, Memory: 24 << 30}},
		{Name: "cpu", Count: 8, Cores: 32},
	})
	s.Outages = nil
	if r := fleet.Run(s, fleet.NewDionysia(placement.DefaultPolicy())); r.AllRefused() != 0 {
		t.Errorf("%d of %d refused", r.AllRefused(), r.Starts)
	}
}

// What a policy may not do is found: a device that lacks the codec.
func TestAChoiceThatCannotBeIsFound(t *testing.T) {
	s := small(1, 100)
	defer func() {
		if recover() == nil {
			t.Error("a stream in HEVC was put on a CPU")
		}
	}()
	fleet.Run(s, anywhere{fleet.NewDionysia(placement.DefaultPolicy()), rand.New(rand.NewPCG(1, 1))})
}

type anywhere struct {
	fleet.Policy
	rng *rand.Rand
}

func (p anywhere) Pick(_ float64, f *fleet.Fleet, _ *fleet.Broadcast, _ bool) (fleet.Ref, bool) {
	return fleet.Ref{Worker: p.rng.IntN(len(f.Workers))}, true
}
