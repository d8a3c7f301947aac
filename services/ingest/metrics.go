package ingest

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	sessions       *prometheus.GaugeVec
	refused        *prometheus.CounterVec
	readRefused    *prometheus.CounterVec
	bytes          *prometheus.CounterVec
	hooks          *prometheus.CounterVec
	authSeconds    *prometheus.HistogramVec
	takeovers      prometheus.Counter
	kicks          prometheus.Counter
	reportFailures prometheus.Counter
	pollFailures   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	const ns = "dionysia_ingest_"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: ns + name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + name, Help: help}, []string{label})
	}
	m := &metrics{
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: ns + "sessions",
			Help: "Publishers that are live, by protocol."}, []string{"protocol"}),
		refused:     counters("publish_refused_total", "Publishers refused, by reason.", "reason"),
		readRefused: counters("read_refused_total", "Readers of mediamtx refused, by reason.", "reason"),
		bytes:       counters("bytes_received_total", "Bytes of media received from publishers, by protocol.", "protocol"),
		hooks:       counters("hooks_total", "Hooks from mediamtx, by event.", "event"),
		authSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: ns + "auth_seconds",
			Help: "Time that mediamtx waited for an auth answer, by action.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 12)}, []string{"action"}),
		takeovers:      counter("takeovers_total", "Publishers that took over from a silent one."),
		kicks:          counter("kicks_total", "Publishers disconnected by the agent."),
		reportFailures: counter("report_failures_total", "Reports that the api did not take."),
		pollFailures:   counter("mediamtx_poll_failures_total", "Times that mediamtx did not list its paths."),
	}
	for _, p := range []string{"rtmp", "rtsp", "srt", "webrtc"} {
		m.sessions.WithLabelValues(p)
		m.bytes.WithLabelValues(p)
	}
	for _, c := range []prometheus.Collector{m.sessions, m.refused, m.readRefused, m.bytes, m.hooks, m.authSeconds,
		m.takeovers, m.kicks, m.reportFailures, m.pollFailures} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) setSessions(list []session) {
	n := map[string]int{"rtmp": 0, "rtsp": 0, "srt": 0, "webrtc": 0}
	for i := range list {
		n[list[i].Protocol]++
	}
	for p, v := range n {
		m.sessions.WithLabelValues(p).Set(float64(v))
	}
}
