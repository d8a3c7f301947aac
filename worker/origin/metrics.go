package origin

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	listed    prometheus.Counter
	unchecked prometheus.Counter
	delay     prometheus.Histogram
	requests  *prometheus.CounterVec
	sent      prometheus.Counter
	fenced    prometheus.Counter
	streams   prometheus.Gauge
	runBytes  prometheus.Gauge
	offered   prometheus.Histogram
	unfetched prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		listed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dionysia_origin_segments_listed_total", Help: "Media sequence numbers made public."}),
		unchecked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dionysia_origin_unchecked_segments_total", Help: "Numbers made public before Redis had their tail entry."}),
		delay: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dionysia_origin_list_delay_seconds", Help: "Last byte of a number's last file written to listed.",
			Buckets: []float64{.005, .01, .02, .05, .1, .2, .3, .5, 1, 2, 5}}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dionysia_origin_http_requests_total", Help: "Requests by kind of object and status."}, []string{"kind", "code"}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dionysia_origin_bytes_sent_total", Help: "Bytes of bodies sent."}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dionysia_origin_fenced_total", Help: "Placements fenced by a higher epoch."}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dionysia_origin_streams", Help: "Streams that this origin holds something of."}),
		runBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "dionysia_origin_run_bytes", Help: "Bytes in the run directories."}),
		offered: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dionysia_origin_offer_seconds", Help: "How long a number waited for the routers that follow its stream to fetch it; only those that waited.",
			Buckets: []float64{.003, .01, .02, .05, .1, .2, .3}}),
		unfetched: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "dionysia_origin_unfetched_segments_total", Help: "Numbers made public before all routers that follow the stream had fetched them."}),
	}
	if r != nil {
		r.MustRegister(m.listed, m.unchecked, m.delay, m.requests, m.sent, m.fenced, m.streams, m.runBytes, m.offered, m.unfetched)
	}
	return m
}
