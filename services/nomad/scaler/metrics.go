package scaler

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/scaling"
)

// Metrics are a scaler's. They are registered also where nothing is scaled.
type Metrics struct {
	utilization, instances *prometheus.GaugeVec
	changes                *prometheus.CounterVec
	errors                 prometheus.Counter
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	const ns = "dionysia_scaling_"
	labels := []string{"job", "group"}
	m := &Metrics{
		utilization: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: ns + "utilization_ratio", Help: "Mean CPU use of the running instances, of what they reserve; left out while it is not known of all."}, labels),
		instances:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: ns + "instances", Help: "Instances that should run."}, labels),
		changes:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + "changes_total", Help: "Changes asked of Nomad: out or in."}, append(labels, "direction")),
		errors:      prometheus.NewCounter(prometheus.CounterOpts{Name: ns + "errors_total", Help: "Looks at a job that failed and are tried again."}),
	}
	return m, errors.Join(reg.Register(m.utilization), reg.Register(m.instances), reg.Register(m.changes), reg.Register(m.errors))
}

// saw shows a sample.
func (m *Metrics) saw(g groupName, s scaling.Sample) {
	m.instances.WithLabelValues(g.job, g.group).Set(float64(s.Count))
	if mean, ok := s.Mean(); ok && s.Unknown == "" {
		m.utilization.WithLabelValues(g.job, g.group).Set(mean)
	} else {
		m.utilization.DeleteLabelValues(g.job, g.group)
	}
}

func (m *Metrics) changed(g groupName, out bool) {
	m.changes.WithLabelValues(g.job, g.group, map[bool]string{true: "out", false: "in"}[out]).Inc()
}

// forget takes away what is no longer looked at.
func (m *Metrics) forget() {
	m.utilization.Reset()
	m.instances.Reset()
}
