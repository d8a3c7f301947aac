// Package consul carries Consul's access-control policies in the program.
package consul

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

//go:embed policies/*.hcl
var files embed.FS

// Policies are the rules of each policy, by the name that it has in Consul after
// "dionysia-".
func Policies() (map[string]string, error) {
	names, err := fs.Glob(files, "policies/*.hcl")
	if err != nil {
		return nil, err
	}
	rules := map[string]string{}
	for _, name := range names {
		b, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("reading the program's own %s: %w", name, err)
		}
		rules[strings.TrimSuffix(path.Base(name), ".hcl")] = string(b)
	}
	return rules, nil
}
