package roles

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const eventsPage = "docs/events.md"

var (
	// dotted is a literal of the form of an event's type, with the level beside it
	// on either side, where it is a literal too.
	dotted = regexp.MustCompile(`(?:"(info|warn|error)", *)?"([a-z]+\.[a-z_]+)"(?:, *"(info|warn|error)")?`)
	// eventWord begins an event's type that stands without its level.
	eventWord = regexp.MustCompile(`^(broadcast|session|placement|publish|run)\.`)
	// eventRow is a line of the page's table.
	eventRow = regexp.MustCompile("(?m)^\\| `([a-z]+\\.[a-z_]+)` \\| (info|warn|error) \\| .+ \\|$")
)

// TestEventsAreDocumented holds the page of events against the types, and levels,
// that the source names.
func TestEventsAreDocumented(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(root, eventsPage))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range eventRow.FindAllStringSubmatch(string(b), -1) {
		if documented[m[1]] != "" {
			t.Errorf("%s names %s twice", eventsPage, m[1])
		}
		documented[m[1]] = m[2]
	}
	if rows := strings.Count(string(b), "\n| `"); rows != len(documented) {
		t.Errorf("%s has %d rows, %d are understood", eventsPage, rows, len(documented))
	}
	written := eventsOfSource(t)
	for typ, levels := range written {
		switch level := documented[typ]; {
		case level == "":
			t.Errorf("%s lacks %s", eventsPage, typ)
		case len(levels) > 0 && !slices.Equal(levels, []string{level}):
			t.Errorf("%s says that %s is of level %s; it is %s", eventsPage, typ, level, strings.Join(levels, " or "))
		}
	}
	for typ := range documented {
		if _, ok := written[typ]; !ok {
			t.Errorf("%s names %s, which nothing writes", eventsPage, typ)
		}
	}
}

// eventsOfSource returns the types of events in the product's source, each with
// the levels that stand beside it.
func eventsOfSource(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	read := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range dotted.FindAllStringSubmatch(string(b), -1) {
			levels := slices.DeleteFunc([]string{m[1], m[3]}, func(s string) bool { return s == "" })
			if len(levels) > 0 || eventWord.MatchString(m[2]) {
				all := slices.Concat(out[m[2]], levels)
				slices.Sort(all)
				out[m[2]] = slices.Compact(all)
			}
		}
		return nil
	}
	for _, dir := range []string{"services", "worker"} {
		if err := filepath.WalkDir(filepath.Join(root, dir), read); err != nil {
			t.Fatal(err)
		}
	}
	if len(out) < 10 {
		t.Fatalf("only %d types of events found in the source: %v", len(out), out)
	}
	return out
}
