package fleet

import (
	"fmt"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/placement"
)

func TestLook(t *testing.T) {
	for _, peak := range []int{900, 1200, 1500} {
		for seed := uint64(1); seed <= 2; seed++ {
			s := Day(seed, peak, Mixed())
			show := func(name string, p Policy) {
				b := time.Now()
				r := Run(s, p)
				fmt.Printf("%d/%d %-24s starts %d ref %d later %d gaveup %d slowed %d | over %.0f dev-s %d | disp %d repl %.2f/%.2f | pack %.2f imb %.2f peak %d | ns %d  %.2fs\n", peak, seed, name, r.Starts, r.Refused, r.RefusedLater, r.GaveUp, r.Slowed, r.Overload, r.Overloaded, r.Displaced, r.ReplaceMean, r.ReplaceP95, r.Packing, r.Imbalance, r.Peak, r.NotServed(), time.Since(b).Seconds())
			}
			show("dionysia", NewDionysia(placement.DefaultPolicy()))
			pk := placement.DefaultPolicy()
			pk.Pack = true
			show("dionysia pack", NewDionysia(pk))
			for _, rv := range Rivals() {
				for _, th := range rv.Tries {
					show(fmt.Sprintf("%s %.2f", rv.Name, th), rv.New(s, th))
				}
			}
		}
	}
}
