package ingest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"text/template"
	"time"

	"github.com/dionysia-dev/dionysia/services/ingest/hook"
	"github.com/dionysia-dev/dionysia/services/stream"
)

// MediaMTXParams are what a mediamtx's configuration depends on. Addresses are
// host:port; an empty one leaves the listener off.
type MediaMTXParams struct {
	RTMP   string // TCP
	RTSP   string // TCP; media too: RTP over UDP is off
	SRT    string // UDP
	WebRTC string // TCP: WHIP
	ICE    string // UDP: WebRTC's media
	// ICEHosts are the addresses that WHIP clients are told to send media to.
	// Without any, those of all interfaces.
	ICEHosts []string
	// API is the control API, which the agent uses. Keep it on loopback.
	API string
	// Metrics is mediamtx's own Prometheus listener, with the same credentials
	// as the API. Keep it on loopback.
	Metrics string

	// AgentURL is the agent's base URL, as mediamtx reaches it.
	AgentURL string
	Secret   Secret
	// Hook is the command that runs `hook`, e.g. {"/usr/bin/dionysia", "hook"};
	// ready or not-ready is added. Without it there are no hooks, and the agent
	// only polls.
	Hook []string

	// ReadTimeout is how long a publisher may send nothing before mediamtx
	// closes it; 0 is 10 s.
	ReadTimeout time.Duration
	// LogLevel is error, warn, info or debug; "" is info. debug prints keys.
	LogLevel string
}

//go:embed mediamtx.yml.tmpl
var mtxTemplate string

// MediaMTXConfig renders mediamtx.yml, for v1.15. It holds a credential: write
// it with mode 0600.
func MediaMTXConfig(p MediaMTXParams) ([]byte, error) {
	auth, err := url.Parse(p.AgentURL)
	if err != nil || auth.Scheme == "" || auth.Host == "" {
		return nil, fmt.Errorf("mediamtx configuration: agent URL %q: %w", p.AgentURL, stream.ErrInvalid)
	}
	// In the user part, for mediamtx prints the URL when the agent is away, and
	// Go blots a password out there.
	auth.User = url.UserPassword(hookUser, p.Secret.Derive(labelHook))
	auth.Path = "/auth"
	hookLine := ""
	if len(p.Hook) > 0 {
		if hookLine, err = shellQuote(p.Hook); err != nil {
			return nil, fmt.Errorf("mediamtx configuration: hook: %w", err)
		}
	}
	if p.ReadTimeout == 0 {
		p.ReadTimeout = 10 * time.Second
	}
	if p.LogLevel == "" {
		p.LogLevel = "info"
	}
	if p.ICEHosts == nil {
		p.ICEHosts = []string{}
	}
	t, err := template.New("mediamtx.yml").Funcs(template.FuncMap{"q": quoteYAML}).Parse(mtxTemplate)
	if err != nil {
		return nil, fmt.Errorf("mediamtx configuration: %w", err)
	}
	var b bytes.Buffer
	err = t.Execute(&b, struct {
		MediaMTXParams
		Auth, HookLine string
	}{p, auth.String(), hookLine})
	if err != nil {
		return nil, fmt.Errorf("mediamtx configuration: %w", err)
	}
	return b.Bytes(), nil
}

// HookEnv is the environment that mediamtx must be given, for its hooks. It
// holds a credential.
func HookEnv(agentURL string, secret Secret) []string {
	return []string{hook.EnvURL + "=" + agentURL, hook.EnvToken + "=" + secret.Derive(labelHook)}
}

// quoteYAML writes a value as JSON, which is YAML.
func quoteYAML(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// shellQuote joins argv for mediamtx, which expands $NAME before it splits the
// way a shell does.
func shellQuote(argv []string) (string, error) {
	out := make([]string, len(argv))
	for i, s := range argv {
		if strings.ContainsAny(s, "$\n") {
			return "", fmt.Errorf("%q has a $ or a line break, which mediamtx can't be passed: %w", s, stream.ErrInvalid)
		}
		out[i] = "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return strings.Join(out, " "), nil
}
