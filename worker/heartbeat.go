package worker

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/task"
)

// How often a report is sent, and the clock compared.
const (
	heartbeatEvery = 500 * time.Millisecond
	clockEvery     = 5 * time.Second
)

// heartbeat sends the report twice a second. Nothing else waits on Redis here.
func (w *Worker) heartbeat() {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	failing := false
	var clockAt time.Time
	for {
		if time.Since(clockAt) > clockEvery {
			if w.compareClock() {
				clockAt = time.Now()
			}
		}
		err := w.putReport()
		if err != nil && !failing && w.ctx.Err() == nil {
			w.log.Warn("can't send heartbeats", "error", err)
		}
		if err == nil && failing {
			w.log.Info("heartbeats are sent again")
		}
		failing = err != nil
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (w *Worker) putReport() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), time.Second)
	defer cancel()
	err := w.deps.Store.PutReport(ctx, w.Report())
	if err != nil {
		w.m.heartbeatErrors.Inc()
	}
	return err
}

// compareClock takes Redis TIME minus our clock, half the round trip aside.
func (w *Worker) compareClock() bool {
	ctx, cancel := context.WithTimeout(w.ctx, time.Second)
	defer cancel()
	before := time.Now()
	at, err := w.deps.Store.Time(ctx)
	trip := time.Since(before)
	if err != nil {
		return false
	}
	ms := float64(at.Sub(before.Add(trip/2)).Microseconds()) / 1000
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clockMS = &ms
	w.m.clockError.Set(ms / 1000)
	return true
}

// Report is what the worker says of itself now.
func (w *Worker) Report() capacity.Report {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	h, port, _ := w.advertised()
	w.mu.Lock()
	defer w.mu.Unlock()
	r := capacity.Report{Worker: w.cfg.ID, Boot: w.boot, Host: host, Version: w.cfg.Version, Labels: w.cfg.Labels, Origin: net.JoinHostPort(h, strconv.Itoa(port)),
		NomadNode: w.cfg.NomadNode, Queue: task.Queue(w.cfg.ID), Time: time.Now().UTC(), ClockErrorMillis: w.clockMS, Ready: w.reason == "", Reason: w.reason,
		Drain: w.drain, GPAC: w.gpac.String(), Runs: w.runs.Epochs()}
	w.devices.Fill(&r)
	return r
}

type metrics struct {
	clockError      prometheus.Gauge
	heartbeatErrors prometheus.Counter
	lingering       prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		clockError: prometheus.NewGauge(prometheus.GaugeOpts{Name: "dionysia_worker_clock_error_seconds",
			Help: "Redis TIME minus this host's clock."}),
		heartbeatErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "dionysia_worker_heartbeat_errors_total",
			Help: "Heartbeats that could not be sent."}),
		lingering: prometheus.NewGauge(prometheus.GaugeOpts{Name: "dionysia_worker_lingering_seconds",
			Help: "How much longer a worker that stops serves what was public of streams that have moved; 0 when it does not stop."}),
	}
	reg.MustRegister(m.clockError, m.heartbeatErrors, m.lingering)
	return m
}
