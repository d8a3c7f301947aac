package router

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/dionysia-dev/dionysia/services/stream"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one router. What every request touches is looked up beforehand:
// a label look-up costs more than the count.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  [kinds]prometheus.Observer
	sent     [kinds]prometheus.Counter
	cache    cacheMetrics
	stale    prometheus.Counter
	rejected *prometheus.CounterVec
	unheld   *prometheus.CounterVec
	held     prometheus.Histogram
	asked    *prometheus.CounterVec
	putOff   *prometheus.CounterVec

	codes sync.Map // code<<8 | kind → prometheus.Counter
}

type cacheMetrics struct{ hit, shared, filled, missing prometheus.Counter }

func newMetrics(r *Router) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dionysia_router_" + name, Help: help}, labels)
		r.deps.Registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string, f func() float64) {
		r.deps.Registry.MustRegister(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: "dionysia_router_" + name, Help: help}, f))
	}
	m := &metrics{
		requests: counter("requests_total", "Requests answered; code 499: the client left first.", "kind", "code"),
		rejected: counter("rejected_manifests_total",
			"Manifests from origins not served, by reason: older than one served before, fenced epoch.", "reason"),
		unheld: counter("unheld_manifests_total",
			"Manifests given out without all that they newly list being held, by reason: slow (it still comes), missing (it can't be had), busy (too much else was being fetched), many (a whole window).", "reason"),
		putOff: counter("ahead_put_off_total",
			"Segments not fetched ahead of viewers as others were being fetched for too long, by what for (hold, follow, prefetch) and reason: busy, silent (their origin answered none).", "for", "reason"),
		asked: counter("upstream_requests_total",
			"Objects asked of origins, by outcome: ok, missing, status (any other), elsewhere (another origin has the address), error (no answer).", "kind", "outcome"),
	}
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "dionysia_router_request_duration_seconds", Help: "From the request's head to the last byte written.",
		Buckets: []float64{.0001, .0003, .001, .003, .01, .03, .1, .3, 1, 3, 10},
	}, []string{"kind"})
	r.deps.Registry.MustRegister(seconds)
	m.held = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "dionysia_router_manifest_hold_seconds", Help: "How long a manifest waited until the router held what it newly lists; only those that waited.",
		Buckets: []float64{.001, .003, .01, .03, .1, .2, .5, 1, 3},
	})
	r.deps.Registry.MustRegister(m.held)
	sent := counter("sent_bytes_total", "Bytes of bodies sent.", "kind")
	for k := range kinds {
		m.seconds[k] = seconds.WithLabelValues(k.String())
		m.sent[k] = sent.WithLabelValues(k.String())
	}
	cached := counter("segment_lookups_total",
		"Segments looked for in memory: hit, shared (joined a fill in flight), filled (began one), missing (a remembered 404).", "result")
	m.cache = cacheMetrics{
		hit: cached.WithLabelValues("hit"), shared: cached.WithLabelValues("shared"),
		filled: cached.WithLabelValues("filled"), missing: cached.WithLabelValues("missing"),
	}
	m.stale = counter("stale_manifests_total", "Last good manifests served because no newer one could be had.").WithLabelValues()
	gauge("segment_bytes", "Memory of segments: cached, filling, and evicted while read.", func() float64 {
		bytes, _ := r.cache.size()
		return float64(bytes)
	})
	gauge("segments", "Segments cached.", func() float64 {
		_, n := r.cache.size()
		return float64(n)
	})
	for _, l := range []*lane{r.holdLane, r.followLane, r.prefetchLane} {
		ahead := func(name, help string, value func() int) {
			r.deps.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "dionysia_router_ahead_" + name, Help: help, ConstLabels: prometheus.Labels{"for": l.name},
			}, func() float64 { return float64(value()) }))
		}
		ahead("fetches", "Segments being fetched ahead of viewers.", func() int { used, _ := l.counts(); return used })
		ahead("waiting", "Segments that wait to be fetched ahead of viewers.", func() int { _, waiting := l.counts(); return waiting })
	}
	gauge("segment_limit_bytes", "Limit of dionysia_router_segment_bytes.", func() float64 { return float64(r.cfg.CacheBytes) })
	gauge("watched_streams", "Streams whose live window is being kept in memory.", func() float64 { return float64(r.watched.Load()) })
	gauge("store_up", "1 while the store answers.", func() float64 {
		if r.storeAway.Load() {
			return 0
		}
		return 1
	})
	return m
}

// request counts one answered request.
func (m *metrics) request(w *response, took time.Duration) {
	m.seconds[w.kind].Observe(took.Seconds())
	m.sent[w.kind].Add(float64(w.sent))
	key := w.code<<8 | int(w.kind)
	c, ok := m.codes.Load(key)
	if !ok {
		c, _ = m.codes.LoadOrStore(key, m.requests.WithLabelValues(w.kind.String(), strconv.Itoa(w.code)))
	}
	c.(prometheus.Counter).Inc()
}

// upstream counts one object asked of an origin.
func (m *metrics) upstream(k kind, err error) {
	outcome := "ok"
	var status statusError
	switch {
	case err == nil:
	case errors.Is(err, errNotLive), errors.Is(err, errNoAsk), errors.Is(err, errGone), errors.Is(err, stream.ErrNotFound):
		return // no origin was asked
	case isMissing(err):
		outcome = "missing"
	case errors.Is(err, errElsewhere):
		outcome = "elsewhere"
	case errors.As(err, &status) && status != http.StatusOK:
		outcome = "status"
	default:
		outcome = "error"
	}
	m.asked.WithLabelValues(k.String(), outcome).Inc()
}
