package roles

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

func TestScalingFlags(t *testing.T) {
	good := ScalingFlags{Jobs: []string{"api", "router"}, Target: 60, OutAfter: 30 * time.Second, InAfter: 5 * time.Minute}
	for name, tc := range map[string]struct {
		change func(f *API)
		loops  int
		says   string
	}{
		"two jobs":          {func(*API) {}, 1, ""},
		"none":              {func(f *API) { f.Scaling, f.Nomad.Addr = ScalingFlags{}, "off" }, 0, ""},
		"an empty variable": {func(f *API) { f.Scaling.Jobs = []string{""} }, 0, ""},
		"without Nomad":     {func(f *API) { f.Nomad.Addr = "off" }, 0, "--scale-jobs needs Nomad: --nomad-addr names it"},
		"a bare address":    {func(f *API) { f.Nomad.Addr = "nomad:4646" }, 0, `--nomad-addr (DIONYSIA_NOMAD_ADDR): "nomad:4646" is not a URL such as http://127.0.0.1:4646 or unix:///secrets/api.sock, nor "off"`},
		"twice":             {func(f *API) { f.Scaling.Jobs = []string{"api", "api"} }, 0, `--scale-jobs: "api" is empty or given twice`},
		"an empty one":      {func(f *API) { f.Scaling.Jobs = []string{"api", ""} }, 0, `--scale-jobs: "" is empty or given twice`},
		"target":            {func(f *API) { f.Scaling.Target = 0 }, 0, "--scale-target 0: it is 1 to 1000 percent"},
		"out":               {func(f *API) { f.Scaling.OutAfter = time.Second }, 0, "--scale-out-after 1s: it is 5s or more"},
		"in":                {func(f *API) { f.Scaling.InAfter = 0 }, 0, "--scale-in-after 0s: it is 5s or more"},
	} {
		t.Run(name, func(t *testing.T) {
			f := API{Scaling: good, Nomad: NomadFlags{Addr: "http://127.0.0.1:1"}}
			tc.change(&f)
			loops, err := f.scale(hclog.NewNullLogger(), prometheus.NewRegistry())
			said := ""
			if err != nil {
				said = err.Error()
			}
			if len(loops) != tc.loops || said != tc.says {
				t.Errorf("%d loops, error %q", len(loops), said)
			}
		})
	}
}
