package api

import (
	"time"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
	"github.com/dionysia-dev/dionysia/services/store"
)

// held is what streams hold of a worker.
type held struct {
	streams map[string]map[string]store.Held // resource → stream
	loads   map[string]placement.Load        // by resource
}

// toWorker joins a worker's report with what streams hold of it. why is why it
// drains, "" when it does not.
func toWorker(seen store.ReportSeen, has held, why string) wire.Worker {
	r := seen.Report
	w := wire.Worker{
		ID: r.Worker, Boot: r.Boot, Host: r.Host, Version: r.Version, Labels: r.Labels, Origin: r.Origin, NomadNode: nonZero(r.NomadNode),
		Ready: r.Ready, Reason: nonZero(r.Reason), Drain: why != "", DrainReason: nonZero(why), Gpac: r.GPAC,
		ClockErrorMs: r.ClockErrorMillis, AgeSeconds: seen.Age.Round(time.Millisecond).Seconds(),
		Nvml: nonZero(r.NVML), SessionLimit: r.SessionLimit, SessionsUsed: r.SessionsUsed,
		Devices: make([]wire.Device, 0, len(r.Devices)), Resources: []wire.Resource{},
	}
	if w.Labels == nil {
		w.Labels = map[string]string{}
	}
	for _, d := range r.Devices {
		w.Devices = append(w.Devices, toDevice(r, d, has))
		w.Resources = append(w.Resources, toResources(r, deviceResources(d), has.loads)...)
	}
	if r.SessionLimit != nil || has.loads[capacity.ResourceSessions].Streams > 0 {
		w.Resources = append(w.Resources, toResource(r, capacity.ResourceSessions, has.loads))
	}
	return w
}

func toDevice(r capacity.Report, d capacity.Device, has held) wire.Device {
	reserved := has.streams[d.ID]
	out := wire.Device{
		Worker: r.Worker, ID: d.ID, Kind: wire.DeviceKind(d.Kind), Name: d.Name, Usable: d.Usable,
		Reason: nonZero(d.Reason), Codecs: nonNil(d.Codecs), CapacityPxS: d.Capacity, CapacitySource: nonZero(d.CapacitySource),
		SessionMaxPxS: d.SessionMax, UsedPxS: d.Used, OtherPxS: d.Other, Cores: d.Cores, Load: d.Load,
		Learned: make([]wire.LearnedLimit, 0, len(d.Learned)), Gpu: toGPU(d.GPU),
		Streams: make(map[string]int64, len(reserved)),
	}
	for id, h := range reserved {
		out.Streams[id] = h.Amount
		out.ReservedPxS += h.Amount
	}
	for _, l := range d.Learned {
		out.Learned = append(out.Learned, wire.LearnedLimit{Limit: l.Limit, Value: l.Value, Why: l.Why, Until: l.Until})
	}
	resources := deviceResources(d)
	if r.SessionLimit != nil && d.GPU != nil && d.GPU.SessionLimited != nil && *d.GPU.SessionLimited {
		resources = append(resources, capacity.ResourceSessions)
	}
	out.Resources = toResources(r, resources, has.loads)
	return out
}

// deviceResources are the resources that a device alone has.
func deviceResources(d capacity.Device) []string {
	if d.Kind == capacity.GPU {
		return []string{d.ID, capacity.MemoryResource(d.ID)}
	}
	return []string{d.ID}
}

func toResources(r capacity.Report, resources []string, loads map[string]placement.Load) []wire.Resource {
	out := make([]wire.Resource, len(resources))
	for i, resource := range resources {
		out[i] = toResource(r, resource, loads)
	}
	return out
}

func toResource(r capacity.Report, resource string, loads map[string]placement.Load) wire.Resource {
	load := loads[resource]
	out := wire.Resource{Resource: resource, Unit: capacity.Unit(resource), Reserved: load.Reserved, Young: load.Young, Streams: load.Streams}
	if l, ok := r.Limit(resource); ok {
		out.Limit, out.Used = &l.Limit, l.Used
	}
	out.Held = load.Held(out.Used)
	return out
}

func toGPU(g *capacity.GPUState) *wire.GPU {
	if g == nil {
		return nil
	}
	out := &wire.GPU{
		Index: g.Index, Architecture: g.Architecture, Driver: g.Driver, PciBus: g.PCIBus, Mig: g.MIG,
		SessionLimited: g.SessionLimited, MemoryTotalBytes: g.MemoryTotal, MemoryUsedBytes: g.MemoryUsed,
		EncoderUtilizationPct: g.EncoderUtilization, DecoderUtilizationPct: g.DecoderUtilization, Encoders: g.Encoders,
		SessionCount: g.SessionCount, AverageFps: g.AverageFPS, AverageLatencyUs: g.AverageLatency,
		PowerW: g.Power, TemperatureC: g.Temperature,
	}
	if g.EncoderCapacity != nil {
		out.EncoderCapacityPct = &g.EncoderCapacity
	}
	if g.ClockReasons != nil {
		out.ClockReasons = &g.ClockReasons
	}
	if g.Sessions != nil {
		sessions := make([]wire.EncoderSession, len(g.Sessions))
		for i, s := range g.Sessions {
			sessions[i] = wire.EncoderSession{Pid: s.PID, Codec: s.Codec, Width: s.Width, Height: s.Height, Fps: s.FPS}
		}
		out.Sessions = &sessions
	}
	return out
}
