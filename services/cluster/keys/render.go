package keys

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"text/template"
)

// part is what a host's files are written from. All values have been checked:
// none has a quote, a backslash or a dollar sign.
type part struct {
	*Cluster
	Host
	Kind        string // server or client
	Encrypt     string
	Agent, DNS  string // Consul's tokens
	NomadsToken string // of Nomad's agent, for Consul
}

// Servers' files set bootstrap_expect; it counts only when the first of them
// meet.
const consulHCL = `# {{.Name}}, by "dionysia cluster init", which writes this file anew: settings of your own go into another.

node_name  = "{{.Name}}"
datacenter = "{{.Datacenter}}"
data_dir   = "/var/lib/consul"
bind_addr  = "{{.IP}}"
retry_join = [{{.Join ""}}]
encrypt    = "{{.Encrypt}}"
{{- if .Server}}

bootstrap_expect = {{len .Servers}}
{{- end}}

acl {
  tokens {
    agent = "{{.Agent}}"
    dns   = "{{.DNS}}"
  }
}

tls {
  internal_rpc {
    ca_file   = "{{.Etc}}/consul.d/ca.pem"
    cert_file = "{{.Etc}}/consul.d/agent.pem"
    key_file  = "{{.Etc}}/consul.d/agent-key.pem"
  }
{{- if .HTTPS}}

  # Who asks shows a token, not a certificate: browsers and DNS forwarders have none.
  https {
    ca_file         = "{{.Etc}}/consul.d/ca.pem"
    cert_file       = "{{.Etc}}/consul.d/agent.pem"
    key_file        = "{{.Etc}}/consul.d/agent-key.pem"
    verify_incoming = false
  }
{{- end}}
}
{{- if .HTTPS}}

ports {
  https = 8501
}

addresses {
  https = "{{.IP}}"
}
{{- end}}
`

// A client's network is the interface that has the host's address: the default is
// the one that the default route leaves by, which may be another.
const nomadHCL = `# {{.Name}}, by "dionysia cluster init", which writes this file anew: settings of your own go into another.

name       = "{{.Name}}"
region     = "{{.Region}}"
datacenter = "{{.Datacenter}}"
data_dir   = "/var/lib/nomad"

addresses {
  http = "127.0.0.1{{if and .HTTPS (ne .IP.String "127.0.0.1")}} {{.IP}}{{end}}"
  rpc  = "{{.IP}}"
  serf = "{{.IP}}"
}

advertise {
  http = "{{.IP}}"
  rpc  = "{{.IP}}"
  serf = "{{.IP}}"
}
{{- if .Server}}

server {
  bootstrap_expect = {{len .Servers}}
  encrypt          = "{{.Encrypt}}"

  server_join {
    retry_join = [{{.Join ":4648"}}]
  }
}
{{- end}}
{{- if .Roles}}

client {
  network_interface = "{{"{{"}} GetAllInterfaces | include \"address\" \"{{.Pattern}}\" | attr \"name\" {{"}}"}}"

  meta {
    dionysia = "{{.Jobs}}"
  }

  server_join {
    retry_join = [{{.Join ":4647"}}]
  }
}
{{- end}}

consul {
  token = "{{.NomadsToken}}"
}

tls {
  ca_file   = "{{.Etc}}/nomad.d/ca.pem"
  cert_file = "{{.Etc}}/nomad.d/agent.pem"
  key_file  = "{{.Etc}}/nomad.d/agent-key.pem"
{{- if .HTTPS}}

  # Who asks shows a token, not a certificate: browsers have none.
  http                = true
  verify_https_client = false
{{- end}}
}
`

// Join are the servers' addresses as a list's elements.
func (p part) Join(port string) string {
	var list []string
	for _, s := range p.Servers() {
		list = append(list, `"`+joinAddress(s.IP, port)+`"`)
	}
	return strings.Join(list, ", ")
}

func joinAddress(ip netip.Addr, port string) string {
	if ip.Is6() && port != "" {
		return "[" + ip.String() + "]" + port
	}
	return ip.String() + port
}

// Pattern matches the host's address as go-sockaddr writes it, with its prefix's
// length.
func (p part) Pattern() string {
	return "^" + strings.ReplaceAll(p.IP.String(), ".", "[.]") + "(/[0-9]+)?$"
}

// Jobs is the value of the meta that the job files' constraints look at.
func (p part) Jobs() string { return strings.Join(p.Roles, ",") }

func render(name, text string, p part) ([]byte, error) {
	t, err := template.New(name).Parse(text)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return nil, fmt.Errorf("writing %s of %s: %w", name, p.Name, err)
	}
	return b.Bytes(), nil
}
