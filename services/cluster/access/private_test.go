package access_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dionysia-dev/dionysia/services/cluster/access"
)

// TestManagementTokensDontGoInClear names addresses at which nobody answers: what is
// not refused at once is waited for, until the end of a moment.
func TestManagementTokensDontGoInClear(t *testing.T) {
	folder := oneServer(t, "10.0.0.1")
	const here = "http://127.0.0.1:1"
	for name, c := range map[string]struct {
		consul, nomad string
		ssl, env      string // CONSUL_HTTP_SSL, CONSUL_HTTP_ADDR
		refused       string // what the error names; none: it is tried
	}{
		"Consul":               {consul: "http://192.0.2.1:8500", nomad: here, refused: "--consul (CONSUL_HTTP_ADDR): Consul at http://192.0.2.1:8500"},
		"without a scheme":     {consul: "192.0.2.1:8500", nomad: here, refused: "--consul"},
		"by its name":          {consul: "http://consul.example:8500", nomad: here, refused: "--consul"},
		"like loopback":        {consul: "http://127.0.0.1.example:8500", nomad: here, refused: "--consul"},
		"of the environment":   {env: "http://192.0.2.1:8500", nomad: here, refused: "CONSUL_HTTP_ADDR"},
		"IPv6":                 {consul: "http://[2001:db8::1]:8500", nomad: here, refused: "--consul"},
		"Nomad":                {consul: here, nomad: "http://192.0.2.1:4646", refused: "--nomad (NOMAD_ADDR): Nomad at http://192.0.2.1:4646"},
		"loopback":             {consul: here, nomad: here},
		"loopback by its name": {consul: "localhost:1", nomad: "http://localhost:1"},
		"loopback of IPv6":     {consul: "http://[::1]:1", nomad: here},
		"a socket":             {consul: "unix:///nonexistent", nomad: "unix:///nonexistent"},
		"HTTPS":                {consul: "https://127.1.1.1:1", nomad: "https://192.0.2.1:4646"},
		"HTTPS asked for":      {consul: "http://127.1.1.1:1", ssl: "true", nomad: here},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("CONSUL_HTTP_SSL", c.ssl)
			t.Setenv("CONSUL_HTTP_ADDR", c.env)
			_, err := access.Apply(t.Context(), access.Options{Keys: folder, Consul: c.consul, Nomad: c.nomad, Timeout: time.Millisecond, Say: func(string) {}})
			if errors.Is(err, access.ErrInClear) != (c.refused != "") || err == nil || !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%v, want %q", err, c.refused)
			}
		})
	}
}
