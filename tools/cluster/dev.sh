# shellcheck shell=bash
# Without root: one -dev agent of Consul and of Nomad.
dev_up() { die "only root can make hosts"; }
dev_down() { :; }
