# shellcheck shell=bash
# Consul and Nomad on every host, with this repository's own configuration files and what `dionysia cluster
# init` makes for each host; `dionysia cluster bootstrap` gives them their access control.
: "${state:?}" "${top:?}" "${servers:?}" "${DIONYSIA_CONSUL:=}" "${DIONYSIA_NOMAD:=}"

roles() { # HOST: what may run there. Edge, router and worker of a stream are on three hosts this way.
  case $1 in
    server) echo redis,api,router ;;
    ingest) echo ingest,api,router ;;
    *) echo worker,edge ;;
  esac
}

is_server() { # HOST
  case $1 in
    server) true ;;
    ingest | w1) [ "$servers" = 3 ] ;;
    *) false ;;
  esac
}

keys() {
  local host flags=()
  for host in "${all_hosts[@]}"; do
    flags+=(--host "$host=$(address "$host")$(! is_server "$host" || echo ,server),$(roles "$host")")
  done
  # A host's own disk is at /srv.
  "$state/bin/dionysia" cluster init "$state/secrets" --etc /srv/etc "${flags[@]}" >"$state/log/init.log" 2>&1 ||
    die "making keys failed: $(cat "$state/log/init.log")"
}

# etc HOST: brings the host its files. What is this cluster's alone lies beside them.
etc() {
  local to=$state/hosts/$1/srv/etc
  rm -rf "$to"
  mkdir -p "${to%/*}"
  cp -r "$state/secrets/hosts/$1" "$to"
  echo 'ports { dns = 53 }' >"$to/consul.d/local.hcl"
  # Nomad's Docker driver would take another Nomad's containers on this machine for leftovers of its own.
  cat >"$to/nomad.d/local.hcl" <<'EOT'
client {
  host_volume "dionysia" {
    path = "/srv/dionysia"
  }
  options {
    "driver.allowlist" = "raw_exec,exec"
  }
}
EOT
}

# agent HOST NAME COMMAND…: starts it there, unless it runs.
agent() {
  local host=$1 what=$2 pid
  shift 2
  ! running "$host-$what" >/dev/null || return 0
  pid=$(running "host-$host")
  background "$host-$what" nsenter --target "$pid" --net --mount --uts --pid -- "$@"
}

consul_up() { # HOST
  local kind=client
  ! is_server "$1" || kind=server
  mkdir -p "$state/hosts/$1/srv/consul"
  agent "$1" consul "$DIONYSIA_CONSUL" agent -config-file="$top/consul/$kind.hcl" -config-dir=/srv/etc/consul.d \
    -data-dir=/srv/consul
}

nomad_up() { # HOST
  local config=(-config="$top/nomad/agent/client.hcl")
  ! is_server "$1" || config+=(-config="$top/nomad/agent/server.hcl")
  mkdir -p "$state/hosts/$1/srv/nomad" "$state/hosts/$1/srv/dionysia" "$state/hosts/$1/srv/tmp"
  agent "$1" nomad env TMPDIR=/srv/tmp "$DIONYSIA_NOMAD" agent "${config[@]}" -config=/srv/etc/nomad.d -data-dir=/srv/nomad
}

# Tokens go by the environment: everybody on this machine may read command lines.
consul() { CONSUL_HTTP_TOKEN=$(cat "$state/secrets/consul.management") on server "$DIONYSIA_CONSUL" "$@"; }
nomad() { NOMAD_TOKEN=$(cat "$state/secrets/nomad.token") on server "$DIONYSIA_NOMAD" "$@"; }

agents_up() {
  local host bootstrap
  keys
  say "starting Consul and Nomad on ${all_hosts[*]}"
  for host in "${all_hosts[@]}"; do
    etc "$host"
    ! is_server "$host" || consul_up "$host"
  done
  on server "$state/bin/dionysia" cluster bootstrap "$state/secrets" --timeout 60s >"$state/log/bootstrap.log" 2>&1 &
  bootstrap=$!
  # An agent that is refused at its start asks again only some time later.
  await 60 "Consul's tokens (tools/cluster.sh logs has bootstrap.log)" consul_tokens
  for host in "${all_hosts[@]}"; do
    consul_up "$host"
    nomad_up "$host"
  done
  wait "$bootstrap" || die "access control failed: $(cat "$state/log/bootstrap.log")"
  await 60 "all hosts being ready in Nomad, with Consul" nomad_nodes
}

# The operator's is made last.
consul_tokens() {
  CONSUL_HTTP_TOKEN=$(cat "$state/secrets/consul.operator") on server "$DIONYSIA_CONSUL" acl token read -self
}

# A node is ready before it has found Consul: its attribute tells.
nomad_nodes() {
  local n
  n=$(nomad operator api '/v1/nodes?os=true' | grep -o '"Status":"ready"' | wc -l)
  [ "$n" -ge "${#all_hosts[@]}" ] || { echo "ready nodes: $n" >&2 && return 1; }
  for n in $(nomad node status -t '{{range .}}{{.ID}} {{end}}'); do
    nomad node status -verbose "$n" | grep -q '^consul.version ' || { echo "node $n has not found Consul" >&2 && return 1; }
  done
}
