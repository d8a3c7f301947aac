package device

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/capacity"
)

// collector makes the metrics of what is known when they are asked for. What is
// unknown is not there.
type collector struct{ m *Manager }

func metric(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("dionysia_worker_device_"+name, help, []string{"device"}, nil)
}

// gauges are the metrics of a device, each with where its value is.
var gauges = []struct {
	desc  *prometheus.Desc
	value func(capacity.Device) *float64
}{
	{metric("capacity_pixels_per_second", "Budget of the device."), func(d capacity.Device) *float64 { return number(d.Capacity) }},
	{metric("used_pixels_per_second", "Measured use of the budget by GPAC."), func(d capacity.Device) *float64 { return number(d.Used) }},
	{metric("other_pixels_per_second", "What other processes take of the budget."), func(d capacity.Device) *float64 { return number(d.Other) }},
	{metric("load_ratio", "Busy share of all cores, of whatever process."), func(d capacity.Device) *float64 { return d.Load }},
	{metric("usable", "1 when runs may be placed on the device."), func(d capacity.Device) *float64 { return yes(d.Usable) }},
	{metric("memory_bytes", "Memory of the GPU."), gpuGauge(func(g *capacity.GPUState) *float64 { return number(g.MemoryTotal) })},
	{metric("memory_used_bytes", "Memory of the GPU in use by all processes."), gpuGauge(func(g *capacity.GPUState) *float64 { return number(g.MemoryUsed) })},
	{metric("encoder_utilization_ratio", "Busy share of the GPU's NVENC engines."), gpuGauge(func(g *capacity.GPUState) *float64 { return percent(g.EncoderUtilization) })},
	{metric("decoder_utilization_ratio", "Busy share of the GPU's NVDEC engines."), gpuGauge(func(g *capacity.GPUState) *float64 { return percent(g.DecoderUtilization) })},
	{metric("encoder_sessions", "Encoder sessions on the GPU, of all processes."), gpuGauge(func(g *capacity.GPUState) *float64 { return number(g.SessionCount) })},
	{metric("temperature_celsius", "Temperature of the GPU."), gpuGauge(func(g *capacity.GPUState) *float64 { return number(g.Temperature) })},
	{metric("power_watts", "Power that the GPU draws."), gpuGauge(func(g *capacity.GPUState) *float64 { return number(g.Power) })},
}

func gpuGauge(value func(*capacity.GPUState) *float64) func(capacity.Device) *float64 {
	return func(d capacity.Device) *float64 {
		if d.GPU == nil {
			return nil
		}
		return value(d.GPU)
	}
}

func yes(b bool) *float64 {
	v := 0.0
	if b {
		v = 1
	}
	return &v
}

func percent(p *int) *float64 {
	if p == nil {
		return nil
	}
	v := float64(*p) / 100
	return &v
}

func number[T int | int64 | float64](p *T) *float64 {
	if p == nil {
		return nil
	}
	v := float64(*p)
	return &v
}

func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, g := range gauges {
		out <- g.desc
	}
}

func (c collector) Collect(out chan<- prometheus.Metric) {
	var r capacity.Report
	c.m.Fill(&r)
	for _, d := range r.Devices {
		for _, g := range gauges {
			if v := g.value(d); v != nil {
				out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, *v, d.ID)
			}
		}
	}
}
