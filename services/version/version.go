// Package version says which build this is.
package version

import "runtime/debug"

// release names a build that has one:
// go build -ldflags "-X github.com/dionysia-dev/dionysia/services/version.release=1.5.0"
var release string

// String returns the release that this was built as, the module's version, or the
// commit it was built from.
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v, rev := info.Main.Version, ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			rev = s.Value
		}
	}
	if v == "" || v == "(devel)" {
		v = "devel"
	}
	if len(rev) >= 12 {
		v += " " + rev[:12]
	}
	return v
}
