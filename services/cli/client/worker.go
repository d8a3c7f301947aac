package client

import (
	"fmt"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// WorkerListCmd is `dionysia worker ls`.
type WorkerListCmd struct {
	Flags
}

// Run lists all workers, a line for each device.
func (cmd *WorkerListCmd) Run(ctx *Context) error {
	return list(ctx, &cmd.Flags, func(c *session, limit *int, after *string) (reply, error) {
		return c.client.ListWorkersWithResponse(c.Ctx, &wire.ListWorkersParams{Limit: limit, After: after})
	}, func(t *table, all []wire.Worker) {
		t.row("WORKER", "HOST", "STATE", "DEVICE", "KIND", "STREAMS", "RESERVED", "USED", "CAPACITY (MPX/S)")
		for _, w := range all {
			for _, d := range w.Devices {
				t.row(w.ID, w.Host, workerState(w), d.ID, string(d.Kind), fmt.Sprint(len(d.Streams)),
					mega(d.ReservedPxS), orDash(d.UsedPxS, mega), orDash(d.CapacityPxS, mega))
			}
			if len(w.Devices) == 0 {
				t.row(w.ID, w.Host, workerState(w), "-", "-", "-", "-", "-", "-")
			}
		}
	})
}

func workerState(w wire.Worker) string {
	switch {
	case !w.Ready:
		return "not ready: " + orDash(w.Reason, text)
	case w.Drain:
		return "draining"
	default:
		return "ready"
	}
}

// WorkerShowCmd is `dionysia worker show`.
type WorkerShowCmd struct {
	Flags
	ID string `arg:""`
}

// Run shows the worker.
func (cmd *WorkerShowCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	w, err := answer[wire.Worker](c.client.GetWorkerWithResponse(c.Ctx, cmd.ID))
	if err != nil {
		return err
	}
	return c.print(w, func(t *table) {
		t.row("id", w.ID)
		t.row("host", w.Host)
		t.row("state", workerState(*w))
		t.row("version", w.Version)
		t.row("gpac", w.Gpac)
		t.row("origin", w.Origin)
		t.row("last report", seconds(w.AgeSeconds)+" ago")
		for _, d := range w.Devices {
			t.row("device "+d.ID, fmt.Sprintf("%s, %s reserved of %s Mpx/s, usable: %s %s", d.Name, mega(d.ReservedPxS),
				orDash(d.CapacityPxS, mega), yes(d.Usable), orDash(d.Reason, text)))
			for id, price := range d.Streams {
				t.row("  stream "+id, mega(price)+" Mpx/s")
			}
		}
	})
}
