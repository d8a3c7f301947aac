// Package provision proves tools/provision and terraform/bare-metal in a fresh
// Debian 12 and, where a mirror of it is at hand, in a fresh Ubuntu 24.04: the
// scripts run in each twice, and the second run changes nothing; Terraform makes
// a machine of it over SSH and takes everything back.
//
// It needs root. All that it mounts and starts is in namespaces of their own,
// which end with the command that made them.
package provision
