# shellcheck shell=bash
# Consul and Nomad on every host, with this repository's own configuration files; what differs from host to
# host (names, addresses, keys, certificates, tokens) is written here beside them.
: "${state:?}" "${top:?}" "${DIONYSIA_CONSUL:=}" "${DIONYSIA_NOMAD:=}"

roles() { # HOST: what may run there. Edge, router and worker of a stream are on three hosts this way.
  case $1 in
    server) echo redis,api,router ;;
    ingest) echo ingest,api,router ;;
    *) echo worker,edge ;;
  esac
}

# Two authorities, each with its own tool, and a certificate for each agent of Nomad and server of Consul;
# Consul's clients get theirs from the servers.
certificates() {
  local tls=$state/secrets/tls
  [ ! -e "$tls/done" ] || return 0
  rm -rf "$tls"
  mkdir -p "$tls/consul" "$tls/nomad"
  chmod 700 "$tls"
  (
    umask 077
    cd "$tls/consul"
    "$DIONYSIA_CONSUL" tls ca create -days 365
    "$DIONYSIA_CONSUL" tls cert create -server -dc dc1 -days 365
    cd "$tls/nomad"
    "$DIONYSIA_NOMAD" tls ca create -days 365
    "$DIONYSIA_NOMAD" tls cert create -server -region global -days 365
    "$DIONYSIA_NOMAD" tls cert create -client -region global -days 365
  ) >"$state/log/certificates.log" 2>&1 || die "making certificates failed: $state/log/certificates.log"
  touch "$tls/done"
}

consul_config() { # HOST
  local tls=$state/secrets/tls/consul
  cat <<EOT
node_name  = "$1"
datacenter = "dc1"
data_dir   = "/srv/consul"
bind_addr  = "$(address "$1")"
retry_join = ["$(address server)"]
encrypt    = "$(secret consul.gossip "$DIONYSIA_CONSUL" keygen)"
ports {
  dns = 53
}
acl {
  tokens {
    agent = "$(secret "consul.agent.$1" uuid)"
    dns   = "$(secret consul.dns uuid)"
EOT
  [ "$1" != server ] || printf '    initial_management = "%s"\n' "$(secret consul.management uuid)"
  printf '  }\n}\ntls {\n  internal_rpc {\n    ca_file = "%s"\n' "$tls/consul-agent-ca.pem"
  [ "$1" != server ] || printf '    cert_file = "%s"\n    key_file = "%s"\n' \
    "$tls/dc1-server-consul-0.pem" "$tls/dc1-server-consul-0-key.pem"
  printf '  }\n}\n'
  [ "$1" != server ] || echo 'bootstrap_expect = 1'
}

nomad_config() { # HOST
  local kind=client tls=$state/secrets/tls/nomad ip
  [ "$1" != server ] || kind=server
  ip=$(address "$1")
  cat <<EOT
name       = "$1"
datacenter = "dc1"
data_dir   = "/srv/nomad"
addresses {
  http = "127.0.0.1"
  rpc  = "$ip"
  serf = "$ip"
}
advertise {
  http = "$ip"
  rpc  = "$ip"
  serf = "$ip"
}
client {
  network_interface = "eth0"
  meta {
    dionysia = "$(roles "$1")"
  }
  host_volume "dionysia" {
    path = "/srv/dionysia"
  }
}
consul {
  token = "$(secret "consul.nomad.$kind" uuid)"
}
tls {
  ca_file   = "$tls/nomad-agent-ca.pem"
  cert_file = "$tls/global-$kind-nomad.pem"
  key_file  = "$tls/global-$kind-nomad-key.pem"
}
EOT
  [ "$1" != server ] || printf 'server {\n  bootstrap_expect = 1\n  encrypt = "%s"\n}\n' \
    "$(secret nomad.gossip "$DIONYSIA_NOMAD" operator gossip keyring generate)"
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
  local kind=client dir=$state/hosts/$1
  [ "$1" != server ] || kind=server
  consul_config "$1" | private "$dir/consul.hcl"
  mkdir -p "$dir/srv/consul"
  agent "$1" consul "$DIONYSIA_CONSUL" agent -config-file="$top/consul/$kind.hcl" -config-file="$dir/consul.hcl"
}

nomad_up() { # HOST
  local dir=$state/hosts/$1 config=(-config="$top/nomad/agent/client.hcl")
  [ "$1" != server ] || config+=(-config="$top/nomad/agent/server.hcl")
  nomad_config "$1" | private "$dir/nomad.hcl"
  mkdir -p "$dir/srv/nomad" "$dir/srv/dionysia"
  agent "$1" nomad "$DIONYSIA_NOMAD" agent "${config[@]}" -config="$dir/nomad.hcl"
}

private() { # FILE: standard input, for root's eyes
  (
    umask 077
    cat >"$1.new"
    mv "$1.new" "$1"
  )
}

consul() { on server env CONSUL_HTTP_TOKEN="$(secret consul.management uuid)" "$DIONYSIA_CONSUL" "$@"; }
nomad() { on server env NOMAD_TOKEN="$(secret nomad.token uuid)" "$DIONYSIA_NOMAD" "$@"; }

agents_up() {
  local host
  certificates
  say "starting Consul and Nomad on ${all_hosts[*]}"
  consul_up server
  await 40 "Consul's server" consul_leads
  consul_tokens
  for host in "${all_hosts[@]}"; do
    consul_up "$host"
    nomad_up "$host"
  done
  await 40 "Nomad's server" nomad_leads
  nomad_bootstrap
  nomad_policies
  workload_identities
  await 60 "all hosts being ready in Nomad, with Consul" nomad_nodes
}

consul_leads() { consul operator raft list-peers | grep -q leader; }

nomad_leads() { on server "$DIONYSIA_NOMAD" operator api /v1/status/leader | grep -q :; }

# A node is ready before it has found Consul: its attribute tells.
nomad_nodes() {
  local n
  n=$(nomad operator api '/v1/nodes?os=true' | grep -o '"Status":"ready"' | wc -l)
  [ "$n" -ge "${#all_hosts[@]}" ] || { echo "ready nodes: $n" >&2 && return 1; }
  for n in $(nomad node status -t '{{range .}}{{.ID}} {{end}}'); do
    nomad node status -verbose "$n" | grep -q '^consul.version ' || { echo "node $n has not found Consul" >&2 && return 1; }
  done
}
