package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	consul "github.com/hashicorp/consul/api"
	"github.com/mattn/go-isatty"

	"github.com/dionysia-dev/dionysia/services/api/wire"
	"github.com/dionysia-dev/dionysia/services/cli/overview"
	"github.com/dionysia-dev/dionysia/services/nomad"
)

// ClusterFlags say where Nomad and Consul are. TLS is set as for their own
// commands, by NOMAD_CACERT, CONSUL_CACERT and the like.
type ClusterFlags struct {
	NomadAddr       string `name:"nomad-addr" env:"NOMAD_ADDR" default:"http://127.0.0.1:4646" placeholder:"URL" help:"URL of Nomad's HTTP API (${default}); 'off' where there is no Nomad. TLS and the namespace as for nomad itself: NOMAD_CACERT, NOMAD_NAMESPACE and the like."`
	NomadTokenFile  string `name:"nomad-token-file" type:"path" placeholder:"FILE" help:"File with the Nomad ACL token; NOMAD_TOKEN unless given. It needs node:read and, in the namespace, read-job."`
	ConsulAddr      string `name:"consul-addr" env:"CONSUL_HTTP_ADDR" default:"127.0.0.1:8500" placeholder:"ADDR" help:"Consul's HTTP API, host:port or URL (${default}); 'off' where there is no Consul. TLS as for consul itself: CONSUL_CACERT and the like."`
	ConsulTokenFile string `name:"consul-token-file" env:"CONSUL_HTTP_TOKEN_FILE" type:"path" placeholder:"FILE" help:"File with the Consul ACL token; CONSUL_HTTP_TOKEN unless given. It needs node:read and service:read."`
}

func (f *ClusterFlags) nomad() (*nomad.Client, error) {
	if f.NomadAddr == nomad.Off {
		return nil, nil
	}
	if err := nomad.CheckAddr(f.NomadAddr); err != nil {
		return nil, fmt.Errorf("--nomad-addr (NOMAD_ADDR): %w", err)
	}
	o := nomad.Options{Addr: f.NomadAddr}
	if f.NomadTokenFile != "" {
		o.Token = func() (string, error) { return tokenOf("--nomad-token-file", f.NomadTokenFile) }
	}
	return nomad.NewClient(o)
}

func (f *ClusterFlags) consul() (*consul.Client, error) {
	if f.ConsulAddr == "off" {
		return nil, nil
	}
	conf := consul.DefaultNonPooledConfig() // there is no way to close a pooled one
	conf.Address = f.ConsulAddr
	if f.ConsulTokenFile != "" {
		token, err := tokenOf("--consul-token-file", f.ConsulTokenFile)
		if err != nil {
			return nil, err
		}
		conf.Token, conf.TokenFile = token, ""
	}
	return consul.NewClient(conf)
}

func tokenOf(flag, path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("%s: %s is empty", flag, path)
	}
	return token, nil
}

// ClusterStatusCmd is `dionysia cluster status`.
type ClusterStatusCmd struct {
	Flags
	ClusterFlags
	Check    bool          `help:"Exit with 1 when something is wrong: anything but warnings, or something that can't be had." xor:"how"`
	Watch    bool          `short:"w" help:"Show it again and again until interrupted; with -o json a line each time." xor:"how"`
	Interval time.Duration `default:"2s" help:"How often --watch looks (${default}), at least 100ms."`
}

// Help explains the table.
func (ClusterStatusCmd) Help() string {
	return `A row for each machine that Nomad, Consul or a worker's report names. ALLOCATIONS are running/desired for each job, SERVICES those whose checks pass of those that have checks. HELD/LIMIT is what streams hold of the CPU and of the GPUs in millions of encoded pixels per second, as in ` + "`dionysia worker ls`" + `; STREAMS are those that the machine transcodes, INGEST those that are published there. A ? is not known, a - is not there. What is wrong is listed below the table, with the checks' own words.

Without --check the exit status says only whether anything could be had.`
}

// Validate implements kong's validator.
func (cmd *ClusterStatusCmd) Validate() error { return checkInterval(cmd.Interval) }

// Run shows the status, once or until it is interrupted.
func (cmd *ClusterStatusCmd) Run(ctx *Context) error {
	c := &session{Context: ctx, json: cmd.Output == "json"}
	asked := cmd.asked(ctx)
	defer asked.Close()
	for {
		s := overview.Assemble(overview.Gather(ctx.Ctx, asked), time.Now())
		if ctx.Ctx.Err() != nil {
			return nil
		}
		if !cmd.Watch {
			if err := c.print(s, func(t *table) { printStatus(t, s, whole) }); err != nil {
				return err
			}
			return cmd.verdict(s)
		}
		if err := c.again(s); err != nil {
			return err
		}
		if !c.wait(cmd.Interval) {
			return nil
		}
	}
}

// asked makes the clients.
func (cmd *ClusterStatusCmd) asked(ctx *Context) overview.Asked {
	a := overview.Asked{NomadAddress: cmd.NomadAddr, ConsulAddress: cmd.ConsulAddr, APIAddress: cmd.API}
	a.Nomad, a.NomadErr = cmd.nomad()
	a.Consul, a.ConsulErr = cmd.consul()
	if s, err := cmd.connect(ctx); err != nil {
		a.APIErr = err
	} else {
		a.API = management{s}
	}
	return a
}

// verdict is the command's own: an error is an exit status of 1.
func (cmd *ClusterStatusCmd) verdict(s *overview.Status) error {
	answered := false
	for _, src := range s.Sources {
		answered = answered || src.Answered
	}
	if !answered {
		return errors.New("neither Nomad nor Consul nor the api could be asked")
	}
	if n := len(s.Critical()); cmd.Check && n > 0 {
		return fmt.Errorf("%s", count(n, "thing")+" wrong")
	}
	return nil
}

// again shows a status in the place of the last one where that can be done.
func (c *session) again(s *overview.Status) error {
	if c.json {
		return c.line(s, "")
	}
	begin := "\n"
	if f, ok := c.Stdout.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		begin = "\x1b[H\x1b[2J" // the cursor home, the screen empty
	}
	if _, err := fmt.Fprint(c.Stdout, begin+clock(s.Time)+"\n"); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	t := newTable(c.Stdout)
	printStatus(t, s, aGlance)
	return t.flush()
}

// management asks the api.
type management struct{ *session }

// Workers implements overview.Management.
func (m management) Workers(ctx context.Context) ([]wire.Worker, error) {
	return every[wire.Worker](func(limit *int, after *string) (reply, error) {
		return m.client.ListWorkersWithResponse(ctx, &wire.ListWorkersParams{Limit: limit, After: after})
	})
}

// Broadcasts implements overview.Management.
func (m management) Broadcasts(ctx context.Context) ([]wire.StreamStatus, error) {
	return every[wire.StreamStatus](func(limit *int, after *string) (reply, error) {
		return m.client.ListBroadcastsWithResponse(ctx, &wire.ListBroadcastsParams{Limit: limit, After: after})
	})
}
