// Command dionysia is every role of the live-streaming platform and its
// command line. See services/cli.
package main

import (
	"os"

	"github.com/dionysia-dev/dionysia/services/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
