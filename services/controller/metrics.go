package controller

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	leader, workers, publishing prometheus.Gauge
	errors, lost                prometheus.Counter
	placements                  *prometheus.CounterVec
	turn                        prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	const ns = "dionysia_controller_"
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: ns + name, Help: help})
	}
	m := metrics{
		leader:     gauge("leader", "1 while this replica leads."),
		workers:    gauge("workers", "Workers that have reported."),
		publishing: gauge("publishing_streams", "Streams with a publisher that is ready."),
		errors:     counter("errors_total", "Turns or streams that failed and are tried again."),
		lost:       counter("workers_lost_total", "Workers found lost."),
		placements: prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "placements_total",
			Help: "Placement decisions by result: committed, refused, conflict or moved."}, []string{"result"}),
		turn: prometheus.NewHistogram(prometheus.HistogramOpts{Name: ns + "turn_seconds",
			Help: "Time of one turn of the loop.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
	}
	for _, c := range []prometheus.Collector{m.leader, m.workers, m.publishing, m.errors, m.lost, m.placements, m.turn} {
		if err := reg.Register(c); err != nil {
			return metrics{}, err
		}
	}
	return m, nil
}
