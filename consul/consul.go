// Package consul carries Consul's access-control policies in the program.
package consul

import "embed"

// Policies are the files policies/NAME.hcl, each named as in Consul after "dionysia-".
//
//go:embed policies/*.hcl
var Policies embed.FS
