package transcode

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	runs     *prometheus.GaugeVec
	restarts *prometheus.CounterVec
	moves    prometheus.Counter
	age      *prometheus.GaugeVec
	cpu      prometheus.Counter
	starting prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		runs: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "dionysia_worker_runs",
			Help: "Placements that this worker holds, by what their run is doing."}, []string{"state"}),
		restarts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dionysia_worker_gpac_restarts_total",
			Help: "Ends of a GPAC process that another one follows, by reason."}, []string{"reason"}),
		moves: prometheus.NewCounter(prometheus.CounterOpts{Name: "dionysia_worker_moves_total",
			Help: "Moves of a run to another device of this worker, after a failure of its own."}),
		age: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "dionysia_worker_segment_age_seconds",
			Help: "Age of the newest whole segment of a running stream's slowest rendition."}, []string{"stream"}),
		cpu: prometheus.NewCounter(prometheus.CounterOpts{Name: "dionysia_worker_gpac_cpu_seconds_total",
			Help: "CPU time that GPAC processes have used."}),
		starting: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "dionysia_worker_first_segment_seconds",
			Help: "Time from starting GPAC to the first listed segment.", Buckets: []float64{1, 2, 3, 4, 5, 6, 8, 10, 15, 30}}),
	}
	if reg != nil {
		reg.MustRegister(m.runs, m.restarts, m.moves, m.age, m.cpu, m.starting)
	}
	return m
}
