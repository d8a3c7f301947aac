#!/usr/bin/env bash
# A whole Dionysia on a Nomad and Consul cluster of several hosts, on this one machine.
#
#   tools/cluster.sh up [OPTION…]                start it (again: what runs is left alone)
#   tools/cluster.sh down                        remove every trace of it
#   tools/cluster.sh env                         print addresses and tokens' files, for a shell to eval
#   tools/cluster.sh on HOST COMMAND…            run a command on one of its hosts
#   tools/cluster.sh kill HOST                   kill a host, as when its power fails
#   tools/cluster.sh job VERB JOB [FLAG…]        nomad job VERB with this cluster's variables, as in: job plan api
#   tools/cluster.sh logs                        print the last lines of every log
#
#   --bare        no test picture
#   --servers 3   Consul's and Nomad's servers on server, ingest and w1, and not on server alone
#   --until PID   take it down when that process has ended
#   --dev         one host, as without root
#
# As root each host is a set of namespaces (network, mounts, processes, host name) on a bridge that lies in a
# namespace too: server, ingest, w1 and w2. This machine's own interfaces, addresses and routes are not
# touched; a forwarder on 127.0.0.1 shows what runs inside. Without root there is one host, this one: a Consul
# and a Nomad in development mode on 127.0.0.1.
#
# Everything lies in DIONYSIA_CLUSTER_DIR, ${XDG_STATE_HOME:-~/.local/state}/dionysia/cluster unless set.
# DIONYSIA_CLUSTER_PORTS is the first of the ports on 127.0.0.1 that it takes (20080 unless set): eight as
# root, 48 without. DIONYSIA_CLUSTER_NAME begins the names of its network namespaces.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lib=$top/tools/cluster
state=${DIONYSIA_CLUSTER_DIR:-${XDG_STATE_HOME:-${HOME:?}/.local/state}/dionysia/cluster}
case $state in /*) ;; *) state=$PWD/$state ;; esac
port=${DIONYSIA_CLUSTER_PORTS:-20080}
name=${DIONYSIA_CLUSTER_NAME:-dionysia}
servers=1
[ ! -s "$state/servers" ] || servers=$(cat "$state/servers")
PATH=$PATH:/usr/sbin:/sbin
umask 022
unset CONSUL_HTTP_ADDR CONSUL_HTTP_TOKEN NOMAD_ADDR NOMAD_TOKEN NOMAD_REGION NOMAD_NAMESPACE

say() { printf 'cluster: %s\n' "$*"; }
die() {
  printf 'tools/cluster.sh: %s\n' "$*" >&2
  exit 1
}

# shellcheck source=tools/cluster/process.sh
. "$lib/process.sh"
# shellcheck source=tools/cluster/hosts.sh
. "$lib/hosts.sh"
# shellcheck source=tools/cluster/agents.sh
. "$lib/agents.sh"
# shellcheck source=tools/cluster/jobs.sh
. "$lib/jobs.sh"

up() {
  local bare='' until='' dev='' began=$SECONDS
  while [ $# -gt 0 ]; do
    case $1 in
      --bare) bare=1 ;;
      --until) until=${2:?} && shift ;;
      --servers) servers=${2:?} && shift ;;
      --dev) dev=1 ;;
      *) die "up: what is $1?" ;;
    esac
    shift
  done
  [[ $servers =~ ^[13]$ ]] || die "--servers is $servers, not 1 or 3"
  [ "$(id -u)" = 0 ] || dev=1
  if [ -e "$state/kind" ] && [ "$(cat "$state/kind")" != "${dev:+dev}" ]; then
    die "another kind of cluster is in $state: take it down first"
  fi
  [ -z "$dev" ] || [ "$servers" = 1 ] || die "--servers $servers needs several hosts: root's, without --dev"
  # shellcheck source=tools/cluster/dev.sh
  [ -z "$dev" ] || . "$lib/dev.sh"
  eval "$("$top/tools/deps.sh" env)"
  local part
  for part in CONSUL NOMAD GPAC REDIS_SERVER MEDIAMTX NGINX FFMPEG; do
    part=DIONYSIA_$part
    [ -n "${!part:-}" ] || die "$part is not there: tools/deps.sh cluster gets it"
  done
  mkdir -p "$state/log" "$state/secrets" "$state/pid"
  chmod 700 "$state/secrets"
  remember up $$
  printf '%s\n' "${dev:+dev}" >"$state/kind"
  printf '%s\n' "$name" >"$state/name"
  printf '%s\n' "$port" >"$state/port"
  printf '%s\n' "$servers" >"$state/servers"
  build
  [ -z "$until" ] || background watch "$lib/until.sh" "$until" "$top/tools/cluster.sh" "$state"
  hosts_up
  agents_up
  jobs_up
  [ -n "$bare" ] || picture_up
  rm -f "$state/pid/up"
  say "up after $((SECONDS - began)) s"
  urls
}

# The program of this checkout, which the jobs run.
build() {
  mkdir -p "$state/bin"
  if [ -n "${DIONYSIA_BIN:-}" ]; then
    install -m 755 "$DIONYSIA_BIN" "$state/bin/dionysia.new"
  else
    (cd "$top" && go build -o "$state/bin/dionysia.new" .)
  fi
  mv "$state/bin/dionysia.new" "$state/bin/dionysia"
}

down() {
  [ -d "$state" ] || {
    say "there is none in $state"
    return
  }
  [ ! -s "$state/name" ] || name=$(cat "$state/name")
  stop up KILL # one that is still at it
  stop picture TERM
  stop forward TERM
  stop watch KILL
  hosts_down
  if [ -e "$state/kept" ]; then
    die "not everything could be removed; it stays in $state: run this again"
  fi
  rm -rf "$state"
  say "nothing of it is left"
}

urls() { # in up
  cat <<EOT

  Consul's UI     http://127.0.0.1:$((port + 4))/ui      token: $state/secrets/consul.operator
  Nomad's UI      http://127.0.0.1:$((port + 5))/ui      token: $state/secrets/nomad.token
  API             http://127.0.0.1:$port/v1     token: $state/secrets/admin.token
  RTMP            rtmp://127.0.0.1:$((port + 3))/live   stream key: NAME?key=KEY
  watch           http://127.0.0.1:$((port + 1))/watch/demo    (edge → router → worker)
  HLS             http://127.0.0.1:$((port + 1))/live/demo/master.m3u8

EOT
  [ -n "$dev" ] || echo "  tools/cluster.sh on w1 bash        a shell on one of its hosts"
  printf '  make cluster-down                  remove it\n\n'
}

env_lines() {
  local show
  for show in "DIONYSIA_API=http://127.0.0.1:$port" "DIONYSIA_TOKEN_FILE=$state/secrets/admin.token" \
    "NOMAD_ADDR=http://127.0.0.1:$((port + 5))" "CONSUL_HTTP_ADDR=http://127.0.0.1:$((port + 4))"; do
    printf 'export %s=%q\n' "${show%%=*}" "${show#*=}"
  done
  [ ! -s "$state/secrets/nomad.token" ] || printf 'export NOMAD_TOKEN=%q\n' "$(cat "$state/secrets/nomad.token")"
  [ ! -s "$state/secrets/consul.management" ] ||
    printf 'export CONSUL_HTTP_TOKEN=%q\n' "$(cat "$state/secrets/consul.management")"
}

logs() {
  local log
  for log in "$state"/log/*.log "$state"/{,hosts/*/srv/}nomad/alloc/*/alloc/logs/*; do
    [ -s "$log" ] || continue
    printf -- '---- %s\n' "${log#"$state"/}"
    tail -n "${1:-60}" "$log" | cut -c 1-600
  done
}

[ ! -s "$state/port" ] || [ "${1:-}" = up ] || port=$(cat "$state/port")
[ ! -s "$state/name" ] || [ "${1:-}" = up ] || name=$(cat "$state/name")
if [ "${1:-}" != up ] && [ "$(cat "$state/kind" 2>/dev/null)" = dev ]; then
  # shellcheck source=tools/cluster/dev.sh
  . "$lib/dev.sh"
fi
case ${1:-} in
  up) up "${@:2}" ;;
  down) down ;;
  env) env_lines ;;
  on) on "${@:2}" ;;
  kill) host_kill "${2:?which host?}" ;;
  job)
    eval "$("$top/tools/deps.sh" env)"
    job "${@:2}"
    ;;
  logs) logs "${2:-}" ;;
  *)
    case ${1:---help} in -h | --help) ;; *) echo "cluster.sh: there is no $1" >&2 ;; esac
    sed -n '2,24s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
