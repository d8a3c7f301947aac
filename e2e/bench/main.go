// Command bench measures Dionysia beside what it is compared with, in one run
// on one machine, and ends with one line per figure: name, value, unit and aim,
// separated by tabs.
package main

import (
	"flag"
	"os"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
)

// options of a run.
type options struct {
	pairs  int           // side-by-side measurements; the figures are medians
	window time.Duration // of each side of a transcode pair
	starts int           // publishes, for first_play_seconds
	only   string        // run only the measurements whose name contains this
}

func main() {
	var o options
	flag.IntVar(&o.pairs, "pairs", 3, "side-by-side pairs; a figure is their median")
	flag.DurationVar(&o.window, "window", 30*time.Second, "length of each side of a transcode pair")
	flag.IntVar(&o.starts, "starts", 5, "publishes for first_play_seconds")
	flag.StringVar(&o.only, "only", "", "run only measurements whose name contains this: start, transcode, router")
	flag.Parse()
	t := harness.NewT("bench")
	b := &bench{options: o, t: t}
	os.Exit(harness.Run(t, &b.figures, o.only, []harness.Measurement{
		{Name: "start", Run: b.starting},
		{Name: "transcode", Run: b.transcode},
		{Name: "router", Run: b.router},
	}))
}

type bench struct {
	options
	t       *harness.T
	figures harness.Figures
}
