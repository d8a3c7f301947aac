package access

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// rules reads the policies that the program carries: the text of each file
// policies/NAME.hcl, by NAME.
func rules(files fs.FS) (map[string]string, error) {
	names, err := fs.Glob(files, "policies/*.hcl")
	if err != nil {
		return nil, err
	}
	texts := map[string]string{}
	for _, name := range names {
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, fmt.Errorf("reading the program's own %s: %w", name, err)
		}
		texts[strings.TrimSuffix(path.Base(name), ".hcl")] = string(b)
	}
	return texts, nil
}
