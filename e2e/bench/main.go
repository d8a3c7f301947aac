// Command bench measures Dionysia beside what it is compared with, in one run
// on one machine, and ends with one line per figure: name, value, unit and aim,
// separated by tabs.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// options of a run.
type options struct {
	pairs  int           // side-by-side measurements; the figures are medians
	window time.Duration // of each side of a transcode pair
	starts int           // publishes, for first_play_seconds
	only   string        // run only the measurements whose name contains this
}

// figure is one line of the result.
type figure struct {
	name  string
	value float64
	unit  string
	aim   string
}

type measurement struct {
	name string
	run  func(*bench) error
}

func main() {
	var o options
	flag.IntVar(&o.pairs, "pairs", 3, "side-by-side pairs; a figure is their median")
	flag.DurationVar(&o.window, "window", 30*time.Second, "length of each side of a transcode pair")
	flag.IntVar(&o.starts, "starts", 5, "publishes for first_play_seconds")
	flag.StringVar(&o.only, "only", "", "run only measurements whose name contains this: start, transcode, router")
	flag.Parse()
	b := &bench{options: o, t: newT("bench")}
	err := b.all([]measurement{
		{"start", (*bench).starting},
		{"transcode", (*bench).transcode},
		{"router", (*bench).router},
	})
	b.t.close()
	if err != nil || b.t.Failed() {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	fmt.Println()
	for _, f := range b.figures {
		fmt.Printf("%s\t%.4g\t%s\t%s\n", f.name, f.value, f.unit, f.aim)
	}
}

type bench struct {
	options
	t       *benchT
	figures []figure
}

// all runs the measurements; a Fatalf in any of them ends it with an error.
func (b *bench) all(ms []measurement) (err error) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(fatal)
			if !ok {
				panic(r)
			}
			err = f
		}
	}()
	for _, m := range ms {
		if !strings.Contains(m.name, b.only) {
			continue
		}
		b.t.Logf("== %s", m.name)
		if err := m.run(b); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

func (b *bench) add(name string, value float64, unit, aim string) {
	b.figures = append(b.figures, figure{name, value, unit, aim})
}

// median returns the middle of v, which must not be empty.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

// quantile returns the value below which the share q of v lies.
func quantile(v []float64, q float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}
