package main

import (
	"fmt"

	"github.com/dionysia-dev/dionysia/e2e/bench/harness"
)

// figure is what a run can end with.
type figure struct{ part, name, unit, aim string }

// sizes are how many origins are registered, for dns.
func sizes() []int { return []int{100, 1000, 5000} }

// known returns all figures, in the order of the parts.
func known() []figure {
	var list []figure
	for _, n := range sizes() {
		aim := "-"
		if n == 5000 {
			aim = "<=1"
		}
		list = append(list,
			figure{"dns", dnsFigure("cached", n), "ms", aim},
			figure{"dns", dnsFigure("uncached", n), "ms", "-"},
			figure{"dns", dnsFigure("naive_srv", n), "ms", "-"},
			figure{"dns", dnsFigure("naive_health", n), "ms", "-"},
			figure{"dns", fmt.Sprintf("dns_cached_vs_naive_%d_origins", n), "ratio", "<1"})
	}
	return append(list,
		figure{"writes", "consul_writes_per_stream_start", "1", "0"},
		figure{"writes", "consul_writes_per_stream_start_naive", "1", "-"},
		figure{"drain", "drain_handover_seconds", "s", "<cold restart"},
		figure{"drain", "cold_restart_handover_seconds", "s", "-"},
		figure{"drain", "drain_stall_seconds", "s", "<cold restart"},
		figure{"drain", "cold_restart_stall_seconds", "s", "-"},
		figure{"drain", "drain_least_buffer_seconds", "s", ">cold restart"},
		figure{"drain", "cold_restart_least_buffer_seconds", "s", "-"},
		figure{"start", "first_segment_after_job_run_seconds", "s", "-"},
		figure{"start", "first_segment_after_all_jobs_run_seconds", "s", "-"},
	)
}

func dnsFigure(what string, origins int) string {
	return fmt.Sprintf("dns_%s_p99_ms_%d_origins", what, origins)
}

// add notes a figure of known.
func (b *bench) add(name string, value float64) {
	for _, f := range known() {
		if f.name == name {
			b.figures.Add(name, value, f.unit, f.aim)
			return
		}
	}
	b.t.Fatalf("there is no figure %s", name)
}

// addMedian notes the median of what was measured.
func (b *bench) addMedian(name string, measured []float64) {
	b.add(name, harness.Median(measured))
}
