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
	"github.com/dionysia-dev/dionysia/worker/device"
)

// How often a report is sent, and each of its parts is measured.
const (
	heartbeatEvery = 500 * time.Millisecond
	loadEvery      = 2 * time.Second
	clockEvery     = 5 * time.Second
	calibrateAgain = 30 * time.Second // after a failure
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
	d := capacity.Device{ID: device.CPUID, Kind: capacity.CPU, Name: w.cpu.Model, Usable: w.reason == "", Reason: w.reason,
		Capacity: w.px, CapacitySource: w.pxFrom, Used: w.used, Cores: &w.cpu.Cores, Load: w.load}
	return capacity.Report{Worker: w.cfg.ID, Boot: w.boot, Host: host, Version: w.cfg.Version, Origin: net.JoinHostPort(h, strconv.Itoa(port)),
		Queue: task.Queue(w.cfg.ID), Time: time.Now().UTC(), ClockErrorMillis: w.clockMS, Ready: w.reason == "", Reason: w.reason,
		Drain: w.drain, GPAC: w.gpac.String(), Devices: []capacity.Device{d}}
}

// measure finds the CPU's capacity, then follows its use.
func (w *Worker) measure() {
	w.wg.Go(w.calibrate)
	var meter device.LoadMeter
	meter.Sample()
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	last, at := w.runs.CPU(), time.Now()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
		}
		load, ok := meter.Sample()
		cpu, now := w.runs.CPU(), time.Now()
		share := max(0, (cpu-last).Seconds()/now.Sub(at).Seconds()/float64(w.cpu.Cores))
		last, at = cpu, now
		w.mu.Lock()
		w.load = nil
		if ok {
			w.load = &load
			w.m.load.Set(load)
		}
		// Only what our GPACs use: the rest of the host is not Dionysia's.
		if w.px != nil {
			used := int64(share / device.Headroom * float64(*w.px))
			w.used = &used
			w.m.used.Set(float64(used))
		}
		w.mu.Unlock()
	}
}

// calibrate finds the capacity: configured, kept, or measured.
func (w *Worker) calibrate() {
	if px := w.cfg.CPUCapacity; px > 0 {
		w.setCapacity(px, "configured")
		return
	}
	for w.ctx.Err() == nil && w.Ready(w.ctx) == nil {
		px, cached, err := device.Calibrate(w.ctx, w.cfg.GPAC, w.gpac.String(), w.cfg.CacheDir, w.cpu)
		if px > 0 {
			from := "calibrated"
			if cached {
				from = "cached"
			}
			w.setCapacity(px, from)
		}
		if err != nil && w.ctx.Err() == nil {
			w.log.Warn("calibration", "error", err)
		}
		if px > 0 {
			return
		}
		select {
		case <-w.ctx.Done():
		case <-time.After(calibrateAgain):
		}
	}
}

func (w *Worker) setCapacity(px int64, from string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.px, w.pxFrom = &px, from
	w.m.capacity.Set(float64(px))
	w.log.Info("CPU capacity", "px_per_s", px, "source", from, "cores", w.cpu.Cores, "model", w.cpu.Model)
}

type metrics struct {
	capacity, used, load, clockError prometheus.Gauge
	heartbeatErrors                  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	labels := prometheus.Labels{"device": device.CPUID}
	gauge := func(name, help string, l prometheus.Labels) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: "dionysia_worker_" + name, Help: help, ConstLabels: l})
		reg.MustRegister(g)
		return g
	}
	m := &metrics{
		capacity:   gauge("device_capacity_pixels_per_second", "Budget of the device.", labels),
		used:       gauge("device_used_pixels_per_second", "Measured use of the budget by GPAC.", labels),
		load:       gauge("device_load_ratio", "Busy share of all cores, of whatever process.", labels),
		clockError: gauge("clock_error_seconds", "Redis TIME minus this host's clock.", nil),
		heartbeatErrors: prometheus.NewCounter(prometheus.CounterOpts{Name: "dionysia_worker_heartbeat_errors_total",
			Help: "Heartbeats that could not be sent."}),
	}
	reg.MustRegister(m.heartbeatErrors)
	return m
}
