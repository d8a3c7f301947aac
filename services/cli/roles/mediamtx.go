package roles

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/dionysia-dev/dionysia/services/ingest"
)

// MediaMTXConfig writes the mediamtx.yml that goes with an ingest agent. An
// empty address leaves that listener off.
type MediaMTXConfig struct {
	Out      string      `help:"File to write, mode 0600, for it holds a credential; - is standard output." default:"-" env:"DIONYSIA_MEDIAMTX_CONFIG_OUT"`
	RTMP     string      `help:"Where mediamtx takes RTMP, host:port." default:":1935" env:"DIONYSIA_MEDIAMTX_RTMP"`
	RTSP     string      `help:"Where it takes RTSP, over TCP." default:":8554" env:"DIONYSIA_MEDIAMTX_RTSP"`
	SRT      string      `help:"Where it takes SRT (UDP)." default:":8890" env:"DIONYSIA_MEDIAMTX_SRT"`
	WHIP     string      `help:"Where it takes WHIP (TCP)." default:":8889" env:"DIONYSIA_MEDIAMTX_WHIP"`
	ICE      string      `name:"ice" help:"Where it takes WebRTC's media (UDP)." default:":8189" env:"DIONYSIA_MEDIAMTX_ICE"`
	ICEHosts []string    `name:"ice-host" help:"Addresses that WHIP clients send media to; those of all interfaces unless given." env:"DIONYSIA_MEDIAMTX_ICE_HOSTS"`
	API      string      `name:"mediamtx-api" help:"Its control API; keep it on loopback." default:"127.0.0.1:9997" env:"DIONYSIA_MEDIAMTX_API_LISTEN"`
	Agent    string      `help:"Base URL of the ingest agent." default:"http://127.0.0.1:8092" env:"DIONYSIA_INGEST_URL"`
	HookEnv  string      `name:"hook-env" help:"File to write the environment of mediamtx's hooks to, mode 0600, as NAME=VALUE lines; mediamtx must be started with it. Without it there are no hooks, and the agent only polls." env:"DIONYSIA_MEDIAMTX_HOOK_ENV" type:"path"`
	Secret   SecretFlags `embed:""`
}

// Write writes the configuration to Out, or to stdout.
func (f MediaMTXConfig) Write(stdout io.Writer) error {
	secret, err := f.Secret.Secret()
	if err != nil {
		return err
	}
	p := ingest.MediaMTXParams{RTMP: f.RTMP, RTSP: f.RTSP, SRT: f.SRT, WebRTC: f.WHIP, ICE: f.ICE, ICEHosts: f.ICEHosts,
		API: f.API, AgentURL: f.Agent, Secret: secret}
	if f.HookEnv != "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding this program's own path: %w", err)
		}
		p.Hook = []string{self, "hook"}
		lines := strings.Join(ingest.HookEnv(f.Agent, secret), "\n") + "\n"
		if err := os.WriteFile(f.HookEnv, []byte(lines), 0o600); err != nil {
			return fmt.Errorf("writing the hooks' environment: %w", err)
		}
	}
	conf, err := ingest.MediaMTXConfig(p)
	if err != nil {
		return err
	}
	if f.Out == "-" {
		_, err = stdout.Write(conf)
		return err
	}
	if err := os.WriteFile(f.Out, conf, 0o600); err != nil {
		return fmt.Errorf("writing mediamtx's configuration: %w", err)
	}
	return nil
}
