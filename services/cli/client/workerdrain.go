package client

import (
	"fmt"

	"github.com/dionysia-dev/dionysia/services/api/wire"
)

// WorkerDrainCmd is `dionysia worker drain`.
type WorkerDrainCmd struct {
	Flags
	ID string `arg:"" name:"worker" help:"The worker's id."`
}

// Help explains what happens.
func (WorkerDrainCmd) Help() string {
	return `The worker takes nothing new from now on, and its streams move to other workers, a few at a time (the api's --drain-moves). Each move is a discontinuity for its viewers. A stream that fits nowhere else stays, and ` + "`dionysia stream events`" + ` says which limit refused it. The worker keeps running; it is drained until ` + "`dionysia worker undrain`" + `, also when it or the api starts again.`
}

// Run asks for the drain and shows what the worker holds.
func (cmd *WorkerDrainCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	w, err := answer[wire.Worker](c.client.DrainWorkerWithResponse(c.Ctx, cmd.ID))
	if err != nil {
		return err
	}
	return c.print(w, func(t *table) {
		n := 0
		for _, d := range w.Devices {
			n += len(d.Streams)
		}
		t.say("Worker %s drains; it holds %s.", w.ID, count(n, "stream"))
	})
}

// WorkerUndrainCmd is `dionysia worker undrain`.
type WorkerUndrainCmd struct {
	Flags
	ID string `arg:"" name:"worker" help:"The worker's id."`
}

// Run takes the wish back.
func (cmd *WorkerUndrainCmd) Run(ctx *Context) error {
	c, err := cmd.connect(ctx)
	if err != nil {
		return err
	}
	res, err := c.client.UndrainWorkerWithResponse(c.Ctx, cmd.ID)
	if err := success(res, err); err != nil {
		return err
	}
	return c.line(struct {
		Worker string `json:"worker"`
		Drain  bool   `json:"drain"`
	}{cmd.ID, false}, fmt.Sprintf("Worker %s is asked to drain no longer. What has moved away stays where it is.", cmd.ID))
}
