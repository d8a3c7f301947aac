package harness

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// Figures are the lines that a run ends with.
type Figures struct{ list []figure }

type figure struct {
	name  string
	value float64
	unit  string
	aim   string
}

// Add adds a figure; its aim is "-" when there is none.
func (f *Figures) Add(name string, value float64, unit, aim string) {
	f.list = append(f.list, figure{name, value, unit, aim})
}

// print writes one line per figure: name, value, unit and aim, separated by tabs.
func (f *Figures) print() {
	fmt.Println()
	for _, l := range f.list {
		fmt.Printf("%s\t%.4g\t%s\t%s\n", l.name, l.value, l.unit, l.aim)
	}
}

// Measurement is a named part of a run.
type Measurement struct {
	Name string
	Run  func() error
}

// Run runs the measurements whose name contains only, closes t and prints the
// figures. It returns the process' exit status.
func Run(t *T, figures *Figures, only string, ms []Measurement) int {
	err := all(t, only, ms)
	t.Close()
	if err != nil || t.Failed() {
		fmt.Fprintf(os.Stderr, "%s: %v\n", t.Name(), err)
		return 1
	}
	figures.print()
	return 0
}

// all ends at the first error; a Fatalf in any of the measurements is one.
func all(t *T, only string, ms []Measurement) (err error) {
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
		if !strings.Contains(m.Name, only) {
			continue
		}
		t.Logf("== %s (%s)", m.Name, Load())
		if err := m.Run(); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		t.Logf("== %s is done (%s)", m.Name, Load())
	}
	return nil
}

// Load says how busy the machine is: what waits for a CPU, on average over the
// last minute, and how many CPUs there are.
func Load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "load unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return fmt.Sprintf("load %s on %d CPUs", one, runtime.NumCPU())
}

// Median returns the middle of v, which must not be empty.
func Median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}

// Quantile returns the value below which the share q of v lies.
func Quantile(v []float64, q float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, int(q*float64(len(v))))]
}
