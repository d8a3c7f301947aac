package main

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
	"github.com/dionysia-dev/dionysia/e2e/bench/placement/fleet"
	"github.com/dionysia-dev/dionysia/services/placement"
)

// peaks are the days that are simulated, by how many streams run at nine in the
// evening: a calm one, one that fills the fleet, and one that is too much for it.
func peaks() []int { return []int{1200, 1600, 2000} }

// contender is a policy with a fixed threshold.
type contender struct {
	name string
	make func(*fleet.Scenario) fleet.Policy
}

// contenders are Dionysia's policy, spreading and packing, and each rival with each
// threshold that is tried.
func contenders() (ours []contender, rivals [][]contender) {
	for _, pack := range []bool{false, true} {
		p := placement.DefaultPolicy()
		p.Pack = pack
		name := "Dionysia"
		if pack {
			name = "Dionysia, packing"
		}
		ours = append(ours, contender{name, func(*fleet.Scenario) fleet.Policy { return fleet.NewDionysia(p) }})
	}
	for _, r := range fleet.Rivals() {
		var tries []contender
		for _, threshold := range r.Tries {
			tries = append(tries, contender{fmt.Sprintf("%s (%.2g)", r.Name, threshold), func(s *fleet.Scenario) fleet.Policy { return r.New(s, threshold) }})
		}
		rivals = append(rivals, tries)
	}
	return ours, rivals
}

// outcome is a contender's results, by seed.
type outcome struct {
	contender
	days []fleet.Result
}

// median of one number of the results.
func (o outcome) median(of func(fleet.Result) float64) float64 {
	var v []float64
	for _, r := range o.days {
		v = append(v, of(r))
	}
	return harness.Median(v)
}

func notServed(r fleet.Result) float64 { return float64(r.NotServed()) }
func refused(r fleet.Result) float64   { return float64(r.AllRefused()) }
func overload(r fleet.Result) float64  { return r.Overload }

// fleet compares the policies on the same fleet, seeds and streams. A rival stands
// with the threshold that serves it best on these very days; Dionysia's policy is
// the default one. refusals_vs_best_rival is the worst of the peaks, and counts the
// streams that were not served as asked: a rival that refuses nothing and drives
// its devices below real time instead is not the better one.
func (b *bench) fleet() error {
	ratio, overloaded := 0.0, 0.0
	for _, peak := range peaks() {
		var days []*fleet.Scenario
		for seed := range b.seeds {
			days = append(days, fleet.Day(uint64(seed+1), peak, fleet.Mixed()))
		}
		ours, rivals := contenders()
		all := slices.Clone(ours)
		for _, tries := range rivals {
			all = append(all, tries...)
		}
		outcomes := simulate(days, all)
		best := slices.Clone(outcomes[:len(ours)])
		rest := outcomes[len(ours):]
		rival := outcome{}
		for _, tries := range rivals {
			o := slices.MinFunc(rest[:len(tries)], func(x, y outcome) int {
				return cmp.Compare(x.median(notServed), y.median(notServed))
			})
			rest = rest[len(tries):]
			best = append(best, o)
			if rival.days == nil || o.median(notServed) < rival.median(notServed) {
				rival = o
			}
		}
		b.table(peak, best)
		ratio = max(ratio, best[0].median(notServed)/max(1, rival.median(notServed)))
		for _, r := range best[0].days {
			overloaded = max(overloaded, r.Overload)
		}
		for _, f := range []struct {
			name string
			of   func(fleet.Result) float64
		}{{"not_served", notServed}, {"refused", refused}} {
			b.figures.Add(fmt.Sprintf("%s_%d_streams", f.name, peak), best[0].median(f.of), "streams", "-")
			b.figures.Add(fmt.Sprintf("%s_best_rival_%d_streams", f.name, peak), rival.median(f.of), "streams", "-")
		}
	}
	b.figures.Add("refusals_vs_best_rival", ratio, "ratio", "<=0.5")
	b.figures.Add("overloads", overloaded, "device-s", "0")
	return nil
}

// simulate runs every contender on every day, as many at once as there are cores.
func simulate(days []*fleet.Scenario, all []contender) []outcome {
	outcomes := make([]outcome, len(all))
	type job struct{ contender, day int }
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for j := range jobs {
				outcomes[j.contender].days[j.day] = fleet.Run(days[j.day], all[j.contender].make(days[j.day]))
			}
		})
	}
	for i, c := range all {
		outcomes[i] = outcome{c, make([]fleet.Result, len(days))}
	}
	for i := range all {
		for d := range days {
			jobs <- job{i, d}
		}
	}
	close(jobs)
	wg.Wait()
	return outcomes
}

// table logs the medians of one peak's outcomes.
func (b *bench) table(peak int, list []outcome) {
	b.t.Logf("%d streams at the peak, %.0f starts; medians of %d days", peak, list[0].median(func(r fleet.Result) float64 { return float64(r.Starts) }), b.seeds)
	b.t.Logf("%-26s %10s %8s %8s %8s %12s %8s %8s %8s %8s %8s", "policy", "not served", "refused", "given up", "slowed", "overload s", "devices", "packing", "stdev", "moved", "after s")
	for _, o := range list {
		m := func(f func(fleet.Result) float64) float64 { return o.median(f) }
		b.t.Logf("%-26s %10.0f %8.0f %8.0f %8.0f %12.0f %8.0f %8.2f %8.2f %8.0f %8.2f", o.name, m(notServed),
			m(func(r fleet.Result) float64 { return float64(r.Refused + r.RefusedLater) }), m(func(r fleet.Result) float64 { return float64(r.GaveUp) }),
			m(func(r fleet.Result) float64 { return float64(r.Slowed) }), m(overload), m(func(r fleet.Result) float64 { return float64(r.Overloaded) }),
			m(func(r fleet.Result) float64 { return r.Packing }), m(func(r fleet.Result) float64 { return r.Imbalance }),
			m(func(r fleet.Result) float64 { return float64(r.Replaced) }), m(func(r fleet.Result) float64 { return r.ReplaceMean }))
	}
}
