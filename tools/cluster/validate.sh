#!/usr/bin/env bash
# Has Nomad and Consul check the job files, the agents' configuration and the policies, each as far as it is
# there (DIONYSIA_NOMAD, DIONYSIA_CONSUL) and as far as it can without a server. What was not checked is said.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# quietly COMMAND…: its output only when it fails.
quietly() {
  "$@" >"$work/log" 2>&1 || {
    printf '%s\n' "$*" >&2
    cat "$work/log" >&2
    exit 1
  }
}

# The archives that provisioning fetches are of the versions that are built and tested here.
versions() {
  local tool name pinned
  # shellcheck source=tools/versions
  . tools/versions
  for tool in consul nomad; do
    name=${tool^^}_VERSION
    pinned=$(awk -v m="github.com/hashicorp/$tool" '$1 == m && $2 ~ /^v/ { print substr($2, 2); exit }' "tools/$tool/go.mod")
    [ "${!name}" = "$pinned" ] || {
      echo "tools/versions: $name is ${!name}, and tools/$tool/go.mod has ${pinned:-none}" >&2
      exit 1
    }
  done
  echo "versions: Consul $CONSUL_VERSION and Nomad $NOMAD_VERSION, as built"
}

nomad_files() {
  local job
  if [ -z "${DIONYSIA_NOMAD:-}" ]; then
    echo "nomad: not here, nomad/ was not checked"
    return
  fi
  quietly "$DIONYSIA_NOMAD" fmt -check -recursive nomad consul
  for job in nomad/jobs/*.nomad.hcl; do
    quietly "$DIONYSIA_NOMAD" job run -output "$job" # parses it, without a server
  done
  printf 'data_dir = "%s"\n' "$work/data" >"$work/host.hcl"
  quietly "$DIONYSIA_NOMAD" config validate nomad/agent/client.hcl "$work/host.hcl"
  quietly "$DIONYSIA_NOMAD" config validate nomad/agent/client.hcl nomad/agent/server.hcl "$work/host.hcl"
  echo "nomad: job files and agents' configuration are valid and formatted"
}

consul_files() {
  local kind
  if [ -z "${DIONYSIA_CONSUL:-}" ]; then
    echo "consul: not here, consul/ was not checked"
    return
  fi
  cat >"$work/host.json" <<EOT
{"data_dir": "$work/data", "datacenter": "dc1", "encrypt": "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=",
  "tls": {"internal_rpc": {"ca_file": "$work/log", "cert_file": "$work/log", "key_file": "$work/log"}}}
EOT
  for kind in server client; do
    quietly "$DIONYSIA_CONSUL" validate "consul/$kind.hcl" "$work/host.json"
  done
  echo "consul: the agents' configuration is valid"
}

versions
nomad_files
consul_files
