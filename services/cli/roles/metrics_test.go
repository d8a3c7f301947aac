package roles

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dionysia-dev/dionysia/internal/testkit"
)

const (
	root        = "../../.."
	metricsPage = "docs/operations/metrics.md"
)

var (
	// described is the form of a prometheus.Desc, which has no accessors.
	described = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: ".*", constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	constName = regexp.MustCompile(`(\w+)=`)
	// ours are the metrics that Dionysia defines; the rest are the Prometheus client's.
	ours = regexp.MustCompile(`^(dionysia|http)_`)
	// row is a line of a table of the metrics' page.
	row = regexp.MustCompile("(?m)^\\| `([a-z_]+)(?:\\{([a-z_,]+)\\})?` \\| ([a-z, ]+) \\| .+ \\|$")
	// mention is a metric's name anywhere in the documents, or the first part of some.
	mention = regexp.MustCompile(`\bdionysia_[a-z_]+\b\*?`)
)

// metric is what the page says of one beside its meaning.
type metric struct{ labels, roles string }

// TestMetricsAreDocumented starts each role on a real Redis and holds what its
// registry has, and what it serves, against the documents.
func TestMetricsAreDocumented(t *testing.T) {
	registries, served, _ := startRoles(t, ConsulFlags{Addr: "off"})
	exposed := map[string]metric{}
	for _, role := range slices.Sorted(maps.Keys(registries)) {
		for name, labels := range descriptions(t, registries[role]) {
			m := exposed[name]
			m.labels = labels
			m.roles = strings.TrimPrefix(m.roles+", "+role, ", ")
			exposed[name] = m
		}
		for _, name := range scrape(t, served[role]) {
			if _, ok := exposed[name]; !ok && ours.MatchString(name) {
				t.Errorf("%s serves %s, which is not of its registry", role, name)
			}
		}
	}
	documented := page(t)
	for name, m := range exposed {
		switch d, ok := documented[name]; {
		case !ok:
			t.Errorf("%s lacks %s: %+v", metricsPage, name, m)
		case d != m:
			t.Errorf("%s says of %s: %+v; it is %+v", metricsPage, name, d, m)
		}
	}
	for name := range documented {
		if _, ok := exposed[name]; !ok {
			t.Errorf("%s names %s, which no role has", metricsPage, name)
		}
	}
	for name, file := range mentions(t) {
		known := func(s string) bool { _, ok := exposed[s]; return ok }
		if prefix, ok := strings.CutSuffix(name, "*"); ok {
			known = func(string) bool {
				return slices.ContainsFunc(slices.Collect(maps.Keys(exposed)), func(s string) bool { return strings.HasPrefix(s, prefix) })
			}
		}
		if !known(name) {
			t.Errorf("%s names %s, which no role has", file, name)
		}
	}
}

// descriptions returns the registered metrics of ours, also those that have no
// value yet, with their labels in alphabetical order.
func descriptions(t *testing.T, reg *prometheus.Registry) map[string]string {
	t.Helper()
	descs := make(chan *prometheus.Desc)
	go func() { reg.Describe(descs); close(descs) }()
	out := map[string]string{}
	for d := range descs {
		m := described.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("a description of another form: %s", d)
		}
		if !ours.MatchString(m[1]) {
			continue
		}
		var labels []string
		for _, l := range constName.FindAllStringSubmatch(m[2], -1) {
			labels = append(labels, l[1])
		}
		if m[3] != "" {
			labels = append(labels, strings.Split(m[3], ",")...)
		}
		out[m[1]] = sorted(labels)
	}
	return out
}

func sorted(labels []string) string {
	slices.Sort(labels)
	return strings.Join(labels, ",")
}

// scrape returns the names of the metrics that a role serves.
func scrape(t *testing.T, addr string) []string {
	t.Helper()
	var names []string
	testkit.Eventually(t, 30*time.Second, "metrics of "+addr, func() error {
		resp, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		names = nil
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (\w+) `).FindAllStringSubmatch(string(b), -1) {
			names = append(names, m[1])
		}
		if len(names) < 10 || !slices.Contains(names, "process_cpu_seconds_total") {
			return fmt.Errorf("status %s, metrics %v", resp.Status, names)
		}
		return nil
	})
	return names
}

// page reads the tables of the metrics' page.
func page(t *testing.T) map[string]metric {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, metricsPage))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]metric{}
	for _, m := range row.FindAllStringSubmatch(string(b), -1) {
		if _, twice := out[m[1]]; twice {
			t.Errorf("%s names %s twice", metricsPage, m[1])
		}
		out[m[1]] = metric{labels: sorted(strings.FieldsFunc(m[2], func(r rune) bool { return r == ',' })), roles: m[3]}
	}
	return out
}

// mentions returns the metrics named in any document, and where.
func mentions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	read := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range mention.FindAllString(string(b), -1) {
			out[name] = path
		}
	}
	read(filepath.Join(root, "README.md"))
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" {
			read(path)
		}
		return err
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("reading the documents: %v, %d names", err, len(out))
	}
	return out
}
