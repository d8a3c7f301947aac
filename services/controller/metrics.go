package controller

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	leader, workers, publishing            prometheus.Gauge
	queue, oldest, degraded, leaving       prometheus.Gauge
	errors, lost, preemptions, generations prometheus.Counter
	placements, refusals, repairs          *prometheus.CounterVec
	turn, decision, refresh                prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) (metrics, error) {
	const ns = "dionysia_controller_"
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: ns + name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + name, Help: help}, []string{label})
	}
	histogram := func(name, help string, first float64, n int) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: ns + name, Help: help, Buckets: prometheus.ExponentialBuckets(first, 2, n)})
	}
	m := metrics{
		leader:      gauge("leader", "1 while this replica leads."),
		workers:     gauge("workers", "Workers that have reported."),
		publishing:  gauge("publishing_streams", "Streams with a publisher that is ready."),
		errors:      counter("errors_total", "Turns or streams that failed and are tried again."),
		lost:        counter("workers_lost_total", "Workers found lost."),
		queue:       gauge("waiting_streams", "Streams that wait for capacity in the queue."),
		oldest:      gauge("waiting_seconds_max", "How long the one that waits longest has waited; 0 when none does."),
		degraded:    gauge("degraded_placements", "Placements without their top rungs for want of room."),
		leaving:     gauge("leaving_streams", "Streams on workers that drain."),
		preemptions: counter("preemptions_total", "Placements ended for a stream of higher priority."),
		generations: counter("state_changes_total", "Times that Redis state was another server or database than before."),
		placements:  counters("placements_total", "Placement decisions by result: committed, moved, restored, rebalanced, refused or conflict.", "result"),
		refusals:    counters("refusals_total", "Waits for capacity, begun or for another reason than before, by the reason of the device that came nearest.", "reason"),
		repairs:     counters("repairs_total", "Reservations that were wrong and put right, in a ledger or in the view of it.", "what"),
		turn:        histogram("turn_seconds", "Time of one turn of the loop.", 0.001, 14),
		decision:    histogram("decision_seconds", "Time of one decision where to place a stream.", 0.000001, 18),
		refresh:     histogram("view_refresh_seconds", "Time to bring the view of the workers and their ledgers up to date.", 0.0001, 16),
	}
	for _, c := range []prometheus.Collector{m.leader, m.workers, m.publishing, m.queue, m.oldest, m.degraded, m.leaving, m.errors, m.lost, m.preemptions,
		m.generations, m.placements, m.refusals, m.repairs, m.turn, m.decision, m.refresh} {
		if err := reg.Register(c); err != nil {
			return metrics{}, err
		}
	}
	return m, nil
}
