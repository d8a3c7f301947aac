// Package nomad carries Nomad's access-control policies in the program.
package nomad

import "embed"

// Policies are the files policies/NAME.hcl, each named by the job whose identity it is for.
//
//go:embed policies/*.hcl
var Policies embed.FS
