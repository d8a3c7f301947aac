// Package cli is the command tree: the roles, `dionysia dev`, and the
// management client. Every flag has an environment variable, and --help shows
// both.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/hashicorp/go-hclog"
	"github.com/mattn/go-isatty"

	"github.com/dionysia-dev/dionysia/services/cli/client"
	"github.com/dionysia-dev/dionysia/services/cli/dev"
	"github.com/dionysia-dev/dionysia/services/store"
	"github.com/dionysia-dev/dionysia/services/version"
)

// commands is the whole tree.
type commands struct {
	LogLevel  string `help:"trace, debug, info, warn or error." enum:"trace,debug,info,warn,error" default:"info" env:"DIONYSIA_LOG_LEVEL"`
	LogFormat string `help:"text or json; auto is text on a terminal and json elsewhere." enum:"auto,text,json" default:"auto" env:"DIONYSIA_LOG_FORMAT"`

	Dev    devCmd    `cmd:"" help:"Run all of Dionysia on this machine, with a test picture."`
	API    apiCmd    `cmd:"" help:"Run the management API and its controller."`
	Ingest ingestCmd `cmd:"" help:"Run the ingest agent beside a mediamtx (flags: dionysia ingest run --help), or write mediamtx's configuration."`
	Router routerCmd `cmd:"" help:"Run the router, which viewers and CDNs ask."`
	Worker workerCmd `cmd:"" help:"Run a worker (flags: dionysia worker run --help), or list, look at and drain workers."`

	Stream  client.StreamCmd  `cmd:"" help:"Create, list, change, watch and delete streams."`
	Profile client.ProfileCmd `cmd:"" help:"List, apply and delete transcoding profiles."`
	Device  client.DeviceCmd  `cmd:"" help:"List the CPUs and GPUs of all workers."`
	Place   client.PlaceCmd   `cmd:"" help:"Explain where a stream is transcoded; simulate where more would go."`

	Cluster client.ClusterCmd `cmd:"" help:"Make, set up and look at the cluster that Nomad and Consul run."`

	Bench benchCmd `cmd:"" help:"Measure this host's CPU and GPUs."`

	Hook    hookCmd    `cmd:"" hidden:"" help:"Called by mediamtx; not for people."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// env is what commands run with.
type env struct {
	ctx    context.Context
	log    hclog.Logger
	stdout io.Writer
	stderr io.Writer
}

// Main parses args, runs the command and returns the exit status: 0, 1 when
// the command failed, 2 when it was misspelt.
func Main(args []string, stdout, stderr io.Writer) int {
	var c commands
	parser, err := kong.New(&c,
		kong.Name("dionysia"),
		kong.Description("Live streaming from open parts: mediamtx takes the publisher's stream, GPAC transcodes and packages it, and a router sends viewers to the worker that holds it."),
		kong.Writers(stdout, stderr),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"data_dir": client.DefaultDataDir(), "demo_profile": dev.DemoProfile, "hostname": hostname()},
	)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "dionysia:", err)
		return 1
	}
	k, err := parser.Parse(args)
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "dionysia:", err)
		_, _ = fmt.Fprintln(stderr, hint(err))
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal ends a stop that hangs.
	context.AfterFunc(ctx, stop)
	e := &env{ctx: ctx, log: c.logger(stderr), stdout: stdout, stderr: stderr}
	store.LogTo(e.log)
	if err := k.Run(e, &client.Context{Ctx: ctx, Stdout: stdout, Stderr: stderr}); err != nil {
		_, _ = fmt.Fprintln(stderr, "dionysia:", err)
		return 1
	}
	return 0
}

// hint says where the help is for the command that args came to.
func hint(err error) string {
	var at *kong.ParseError
	if errors.As(err, &at) && at.Context != nil {
		if n := at.Context.Selected(); n != nil {
			return fmt.Sprintf("Run `dionysia %s --help` for its flags.", n.Path())
		}
	}
	return "Run `dionysia --help` for the commands."
}

func (c *commands) logger(w io.Writer) hclog.Logger {
	json := c.LogFormat == "json"
	if c.LogFormat == "auto" {
		f, ok := w.(*os.File)
		json = !ok || !isatty.IsTerminal(f.Fd())
	}
	return hclog.New(&hclog.LoggerOptions{Name: "dionysia", Level: hclog.LevelFromString(c.LogLevel), Output: w, JSONFormat: json})
}

func hostname() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "localhost"
	}
	h, _, _ = strings.Cut(strings.ToLower(h), ".")
	return h
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(e *env) error {
	_, err := fmt.Fprintln(e.stdout, "dionysia", version.String())
	return err
}

type devCmd struct {
	dev.Dev
}

// Run runs a development instance until a signal.
func (d *devCmd) Run(e *env) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program's own path: %w", err)
	}
	d.Self, err = filepath.EvalSymlinks(self)
	if err != nil {
		return fmt.Errorf("finding this program's own path: %w", err)
	}
	return d.Start(e.ctx, e.log, e.stdout)
}
