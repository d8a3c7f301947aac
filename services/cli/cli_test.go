package cli

import (
	"bytes"
	"strings"
	"testing"
)

func TestAMisspeltCommandNamesItsOwnHelp(t *testing.T) {
	for args, want := range map[string]string{
		"":                   "`dionysia --help`",
		"edge":               "`dionysia --help`",
		"--bogus":            "`dionysia --help`",
		"cluster bogus":      "`dionysia cluster --help`",
		"cluster init":       "`dionysia cluster init --help`",
		"worker drain":       "`dionysia worker drain --help`",
		"worker run --bogus": "`dionysia worker run --help`",
	} {
		var out, errs bytes.Buffer
		if status := Main(strings.Fields(args), &out, &errs); status != 2 || !strings.Contains(errs.String(), want) {
			t.Errorf("%q: %d, %s; want 2 and %s", args, status, errs.String(), want)
		}
	}
}
