// Command cluster measures what of a cluster viewers and operators wait for: how
// soon a worker's job plays, what a drain costs beside a cold restart, how fast
// routers find origins among thousands, and what a stream's start writes to
// Consul. It ends with one line per figure: name, value, unit and aim, separated
// by tabs. docs/bench-cluster.md explains the figures.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
)

// options of a run.
type options struct {
	streams int           // in Redis, for dns
	rate    int           // requests per second
	window  time.Duration // of each side of a round
	rounds  int           // side by side, and repetitions; the figures are medians
	only    string        // run only the parts whose names contain one of these, separated by commas
}

type bench struct {
	options
	t       *harness.T
	figures harness.Figures
	hosts   *hosts // nil until a part has needed them
}

// part is a measurement, and whether it needs hosts, which only root can make.
type part struct {
	name  string
	hosts bool
	run   func() error
}

// notRun is the exit status when what was run succeeded and some was not run.
const notRun = 3

func main() {
	if len(os.Args) > 1 && os.Args[1] == naiveCommand {
		if err := serveNaive(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.IntVar(&o.streams, "streams", 100_000, "streams in Redis, for dns")
	flag.IntVar(&o.rate, "rate", 500, "requests per second, for dns")
	flag.DurationVar(&o.window, "window", 6*time.Second, "length of each side of a round, for dns")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each measurement; a figure is their median")
	flag.StringVar(&o.only, "only", "", "run only the parts whose names contain one of these, separated by commas: dns, writes, drain, start")
	flag.Usage = usage
	flag.Parse()
	if most := slices.Max(sizes()); o.streams < most || o.rate < 1 || o.rounds < 1 || o.window <= 0 {
		fmt.Fprintf(os.Stderr, "-streams must be %d at least, -rate and -rounds 1, -window above 0\n", most)
		os.Exit(2)
	}
	b := &bench{options: o, t: harness.NewT("bench-cluster")}
	os.Exit(b.all())
}

func usage() {
	out := flag.CommandLine.Output()
	_, _ = fmt.Fprintf(out, "Measures a cluster on this machine. Options:\n")
	flag.PrintDefaults()
	_, _ = fmt.Fprintf(out, "\nFigures (start, drain and writes make hosts, which needs root; without it the exit status is not 0):\n")
	for _, f := range known() {
		_, _ = fmt.Fprintf(out, "  %-6s  %-44s  %-6s  %s\n", f.part, f.name, f.unit, f.aim)
	}
}

// all runs the parts and returns the exit status.
func (b *bench) all() int {
	var run []harness.Measurement
	var not []string
	for _, p := range []part{
		{"dns", false, b.dns},
		{"writes", true, b.writes},
		{"drain", true, b.drain},
		{"start", true, b.starting},
	} {
		switch {
		case !slices.ContainsFunc(strings.Split(b.only, ","), func(o string) bool { return strings.Contains(p.name, o) }):
		case p.hosts && os.Getuid() != 0:
			not = append(not, p.name)
		default:
			run = append(run, harness.Measurement{Name: p.name, Run: func() error {
				err := p.run()
				if err != nil {
					b.t.Fail() // then what has been started shows its logs
				}
				return err
			}})
		}
	}
	if len(run) == 0 && len(not) == 0 {
		fmt.Fprintf(os.Stderr, "no part's name contains %q: they are dns, writes, drain, start\n", b.only)
		return 2
	}
	status := harness.Run(b.t, &b.figures, "", run)
	if len(not) > 0 {
		fmt.Fprintf(os.Stderr, "not run: %s: hosts are network namespaces, which only root can make\n", strings.Join(not, ", "))
		status = max(status, notRun)
	}
	return status
}
