package cli

import (
	"context"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/services/cli/bench"
	"github.com/dionysia-dev/dionysia/services/cli/client"
	"github.com/dionysia-dev/dionysia/services/cli/roles"
	"github.com/dionysia-dev/dionysia/services/ingest/hook"
)

// drainTime bounds how long a role takes to stop after SIGTERM, unless it says
// that it may take longer.
const drainTime = 25 * time.Second

type starter interface {
	Start(ctx context.Context, log hclog.Logger, reg *prometheus.Registry) (roles.App, error)
}

// runRole runs one role alone until a signal.
func runRole(e *env, r starter) error {
	app, err := r.Start(e.ctx, e.log, roles.NewRegistry())
	if err != nil {
		return err
	}
	<-e.ctx.Done()
	e.log.Info("draining")
	limit := drainTime
	if s, ok := r.(interface{ StopTime() time.Duration }); ok {
		limit = max(limit, s.StopTime())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(e.ctx), limit)
	defer cancel()
	app.Stop(ctx)
	return nil
}

type apiCmd struct{ roles.API }

// Run runs the api until a signal.
func (c *apiCmd) Run(e *env) error { return runRole(e, c.API) }

type ingestCmd struct {
	Run    ingestRunCmd    `cmd:"" default:"withargs" help:"Run the ingest agent beside a mediamtx."`
	Config ingestConfigCmd `cmd:"" help:"Write the mediamtx.yml that goes with the agent."`
}

type ingestRunCmd struct{ roles.Ingest }

// Run runs the ingest agent until a signal.
func (c *ingestRunCmd) Run(e *env) error { return runRole(e, c.Ingest) }

type ingestConfigCmd struct{ roles.MediaMTXConfig }

// Run writes the configuration.
func (c *ingestConfigCmd) Run(e *env) error { return c.Write(e.stdout) }

type routerCmd struct{ roles.Router }

// Run runs the router until a signal.
func (c *routerCmd) Run(e *env) error { return runRole(e, c.Router) }

type workerCmd struct {
	Run     workerRunCmd            `cmd:"" default:"withargs" help:"Run a worker: GPAC and its origin."`
	Ls      client.WorkerListCmd    `cmd:"" help:"List the workers, their devices and what is reserved."`
	Show    client.WorkerShowCmd    `cmd:"" help:"Show one worker."`
	Drain   client.WorkerDrainCmd   `cmd:"" help:"Place nothing new on a worker and move its streams to others."`
	Undrain client.WorkerUndrainCmd `cmd:"" aliases:"resume" help:"Let a drained worker take streams again."`
}

type workerRunCmd struct{ roles.Worker }

// Run runs the worker until a signal.
func (c *workerRunCmd) Run(e *env) error { return runRole(e, c.Worker) }

type benchCmd struct {
	Transcode benchTranscodeCmd `cmd:"" help:"Measure what each device of this host encodes; keep it for the worker."`
}

type benchTranscodeCmd struct{ bench.Transcode }

// Run measures the devices.
func (c *benchTranscodeCmd) Run(e *env) error { return c.Transcode.Run(e.ctx, e.stdout, e.stderr) }

type hookCmd struct {
	Event string `arg:"" enum:"ready,not-ready"`
}

// Run tells the ingest agent what mediamtx saw.
func (c *hookCmd) Run(e *env) error { return hook.Run(e.ctx, []string{c.Event}, os.Getenv) }
