package api

import (
	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/capacity"
	"github.com/dionysia-dev/dionysia/services/placement"
)

// The orders of a placement policy.
const (
	orderSpread = "spread"
	orderPack   = "pack"
)

func toExplanation(e placement.Explanation, p placement.Policy) wire.Explanation {
	out := wire.Explanation{
		Profile: e.Profile.Name, Renditions: renditionNames(e.Profile.Video),
		Policy: wire.PlacementPolicy{Order: orderSpread, FailoverReserve: p.Reserve},
		Costs:  []wire.Cost{}, Refusal: nonZero(e.Refusal),
		Devices: make([]wire.ExplainedDevice, len(e.Devices)),
	}
	if p.Pack {
		out.Policy.Order = orderPack
	}
	for _, kind := range []capacity.Kind{capacity.CPU, capacity.GPU} {
		c := e.Costs[kind]
		out.Costs = append(out.Costs, wire.Cost{Kind: string(kind), PxS: c.Px, WidestPxS: c.Widest, Sessions: c.Sessions,
			MemoryBytes: c.Memory, HostPxS: c.HostPx})
	}
	if e.Decision != nil {
		d := toDecision(*e.Decision)
		out.Decision = &d
	}
	for i, d := range e.Devices {
		out.Devices[i] = toExplainedDevice(d)
	}
	return out
}

func toDecision(d placement.Decision) wire.Decision {
	return wire.Decision{Worker: d.Worker, Device: d.Device, Reserved: toReservations(d.Reserved),
		Renditions: renditionNames(d.Profile.Video), Dropped: renditionNames(d.Dropped)}
}

func toExplainedDevice(d placement.DeviceExplanation) wire.ExplainedDevice {
	out := wire.ExplainedDevice{
		Worker: d.Worker, Device: d.Device, Kind: nonZero(string(d.Kind)), Name: nonZero(d.Name),
		Rank: d.Rank, Reason: d.Reason.String(), Text: d.Text,
		Resources: make([]wire.ExplainedResource, len(d.Resources)),
	}
	if s := d.Score; s != nil {
		out.Score = &wire.Score{Stay: s.Stay, Preferred: toRules(d.Preferred), Tier: s.Tier, SpareCodecs: s.Spare, Share: s.Share}
	}
	for i, r := range d.Resources {
		out.Resources[i] = wire.ExplainedResource{
			Resource: r.Resource, Unit: capacity.Unit(r.Resource), Needed: r.Need, Limit: r.Limit, Open: r.Open,
			Reserved: r.Reserved, Young: r.Young, Streams: r.Streams, Used: r.Used, Held: r.Held,
		}
	}
	return out
}
