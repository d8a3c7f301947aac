// Command placement measures how fast placements are decided and committed, on a
// real Redis, and how well streams are placed, in a simulated day beside what
// other systems do. It ends with one line per figure: name, value, unit and aim,
// separated by tabs. docs/bench-placement.md explains the figures.
package main

import (
	"flag"
	"os"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
)

// options of a run.
type options struct {
	streams int           // placed streams at 10,000 devices
	rounds  int           // windows of each decision measurement; figures are medians
	window  time.Duration // of a measurement
	seeds   int           // days that are simulated; figures are medians
	only    string
}

type bench struct {
	options
	t       *harness.T
	figures harness.Figures
}

func main() {
	var o options
	flag.IntVar(&o.streams, "streams", 100_000, "placed streams at 10,000 devices; fewer devices have fewer in proportion")
	flag.IntVar(&o.rounds, "rounds", 7, "windows of each measurement of decisions; a figure is their median")
	flag.DurationVar(&o.window, "window", 2*time.Second, "length of a window")
	flag.IntVar(&o.seeds, "seeds", 5, "days to simulate; a figure is their median")
	flag.StringVar(&o.only, "only", "", "run only measurements whose name contains this: decisions, commits, fleet")
	flag.Parse()
	b := &bench{options: o, t: harness.NewT("bench-placement")}
	os.Exit(harness.Run(b.t, &b.figures, o.only, []harness.Measurement{
		{Name: "decisions", Run: b.decisions},
		{Name: "commits", Run: b.commits},
		{Name: "fleet", Run: b.fleet},
	}))
}
