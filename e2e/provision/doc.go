// Package provision proves tools/provision and terraform/bare-metal in a fresh
// Debian 12, or in Ubuntu 24.04 where that is what apt has a mirror of: the
// scripts run in it twice, and the second run changes nothing; Terraform makes
// a machine of it over SSH and takes everything back.
//
// It needs root. All that it mounts and starts is in namespaces of their own,
// which end with the command that made them.
package provision
