package client

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// WorkerListCmd is `dionysia worker ls`.
type WorkerListCmd struct {
	Flags
}

// Help explains the columns.
func (WorkerListCmd) Help() string { return columnsHelp }

const columnsHelp = `HELD is what counts as taken of LIMIT, both in millions of encoded pixels per second (Mpx/s): the larger of what streams have reserved and what is measured. On a CPU the pixels are those of x264's veryfast, on a GPU of NVENC's H.264 at preset P3. FREE is what is left in 1080p renditions at 30 frames per second (62.2 Mpx/s each). A ? is not known.`

// Run lists all workers, a line for each device.
func (cmd *WorkerListCmd) Run(ctx *Context) error {
	return list(ctx, &cmd.Flags, func(c *session, limit *int, after *string) (reply, error) {
		return c.client.ListWorkersWithResponse(c.Ctx, &wire.ListWorkersParams{Limit: limit, After: after})
	}, func(t *table, all []wire.Worker) {
		t.row("WORKER", "HOST", "STATE", "DEVICE", "KIND", "STREAMS", "HELD", "LIMIT (MPX/S)", "FREE (1080P30)", "LABELS")
		for _, w := range all {
			for _, d := range w.Devices {
				r := own(d)
				t.row(w.ID, w.Host, workerState(w), short(d.ID), string(d.Kind), fmt.Sprint(len(d.Streams)),
					mega(r.Held), orUnknown(r.Limit, mega), free(d), labels(w))
			}
			if len(w.Devices) == 0 {
				t.row(w.ID, w.Host, workerState(w), "-", "-", "-", "-", "-", "-", labels(w))
			}
		}
	})
}

// own is a device's ledger of px/s.
func own(d wire.Device) wire.Resource { return resource(d.Resources, d.ID) }

// resource finds a resource; an empty one stands for one that is not there.
func resource(list []wire.Resource, name string) wire.Resource {
	for _, r := range list {
		if r.Resource == name {
			return r
		}
	}
	return wire.Resource{Resource: name}
}

// free is what is left of a device, in 1080p30 renditions.
func free(d wire.Device) string {
	r := own(d)
	switch {
	case !d.Usable:
		return "-"
	case r.Limit == nil:
		return unknown
	}
	return equivalents(max(0, *r.Limit-r.Held))
}

func labels(w wire.Worker) string {
	if len(w.Labels) == 0 {
		return "-"
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(w.Labels)) {
		parts = append(parts, k+"="+w.Labels[k])
	}
	return strings.Join(parts, ",")
}

func workerState(w wire.Worker) string {
	switch {
	case !w.Ready:
		return "not ready: " + orDash(w.Reason, text)
	case w.Drain:
		return "draining: " + orDash(w.DrainReason, text)
	default:
		return "ready"
	}
}

func deviceState(d wire.Device) string {
	if d.Usable {
		return "usable"
	}
	return "not usable: " + orUnknown(d.Reason, text)
}

// DeviceCmd is `dionysia device`.
type DeviceCmd struct {
	List DeviceListCmd `cmd:"" name:"ls" aliases:"list" help:"List the devices of all workers, what they can do and what is held."`
}

// DeviceListCmd is `dionysia device ls`.
type DeviceListCmd struct {
	Flags
}

// Help explains the columns.
func (DeviceListCmd) Help() string {
	return columnsHelp + "\n\nSESSIONS (encoder sessions of the system's GeForce cards) and MEMORY (GiB) are held/limit; a - is not bounded."
}

// Run lists all devices.
func (cmd *DeviceListCmd) Run(ctx *Context) error {
	return list(ctx, &cmd.Flags, func(c *session, limit *int, after *string) (reply, error) {
		return c.client.ListDevicesWithResponse(c.Ctx, &wire.ListDevicesParams{Limit: limit, After: after})
	}, func(t *table, all []wire.Device) {
		t.row("WORKER", "DEVICE", "NAME", "CODECS", "STREAMS", "HELD", "LIMIT (MPX/S)", "FREE (1080P30)", "SESSIONS", "MEMORY (GIB)", "STATE")
		for _, d := range all {
			r := own(d)
			t.row(d.Worker, short(d.ID), d.Name, codecs(d), fmt.Sprint(len(d.Streams)), mega(r.Held), orUnknown(r.Limit, mega), free(d),
				share(d.Resources, "sessions", number[int64]), share(d.Resources, "bytes", gib), deviceState(d))
		}
	})
}

func codecs(d wire.Device) string {
	if len(d.Codecs) == 0 {
		return "-"
	}
	return strings.Join(d.Codecs, ",")
}

// share is held/limit of the resource in that unit, - when there is none.
func share(list []wire.Resource, unit string, format func(int64) string) string {
	for _, r := range list {
		if r.Unit == unit {
			return format(r.Held) + "/" + orUnknown(r.Limit, format)
		}
	}
	return "-"
}
