# shellcheck shell=bash
# One host, for whoever isn't root: a Consul and a Nomad in development mode (-dev) on 127.0.0.1, each with
# this repository's configuration of servers and clients, and every job on them. What this file defines again
# of hosts.sh, agents.sh and jobs.sh is different here.
: "${state:?}" "${top:?}" "${port:?}" "${DIONYSIA_CONSUL:=}" "${DIONYSIA_NOMAD:=}"

dev_ports=48 # from $port on: those of at, and from the 20th on those that Nomad gives away

# at NAME: the port of a listener.
at() {
  local n
  case $1 in
    api) n=0 ;;
    edge) n=1 ;;
    rtmp) n=3 ;; # 2 is free: the router has a port that Nomad chooses
    consul) n=4 ;;
    nomad) n=5 ;;
    dns) n=6 ;;
    consul-rpc) n=7 ;;
    consul-serf) n=8 ;;
    nomad-rpc) n=9 ;;
    nomad-serf) n=10 ;;
    redis-state) n=11 ;;
    redis-live) n=12 ;;
    origin) n=13 ;;
    rtsp) n=14 ;;
    srt) n=15 ;;
    whip) n=16 ;;
    ice) n=17 ;;
    *) die "no listener is named $1" ;;
  esac
  echo $((port + n))
}

# ── the host ──────────────────────────────────────────────────────────────────────────────────────────

all_hosts=(dev)
instances=(redis-state:1 redis-live:1 api:1 ingest:1 mediamtx:1 worker:1 origin:1 router:1 edge:1)

on() { die "there is one host only, this one: run the command itself"; }
host_kill() { die "there is one host only, this one: killing hosts needs 'up' as root, without --dev"; }
into() { entry=(); }
consul() { CONSUL_HTTP_TOKEN=$(cat "$state/secrets/consul.management") CONSUL_HTTP_ADDR=127.0.0.1:$(at consul) "$DIONYSIA_CONSUL" "$@"; }
nomad() { NOMAD_TOKEN=$(cat "$state/secrets/nomad.token") NOMAD_ADDR=http://127.0.0.1:$(at nomad) "$DIONYSIA_NOMAD" "$@"; }
on_agents() { CONSUL_HTTP_ADDR=127.0.0.1:$(at consul) NOMAD_ADDR=http://127.0.0.1:$(at nomad) "$@"; }
dionysia() { DIONYSIA_API=http://127.0.0.1:$(at api) DIONYSIA_TOKEN_FILE=$state/secrets/admin.token "$state/bin/dionysia" "$@"; }
forward_up() { :; } # everything listens on its own port already

# An agent in development mode keeps nothing: when one has ended, everything starts again, with the secrets
# and the Redis that are there.
hosts_up() {
  # Secrets lie in files here. Nomad gives those of a task without a user name to all; root's GPAC is another user.
  [ "$(id -u)" = 0 ] || { chmod 700 "$state" && umask 077; }
  running consul >/dev/null && running nomad >/dev/null && return 0
  [ "${#state}" -le 80 ] || die "the path $state is too long for sockets in it: name a shorter one in DIONYSIA_CLUSTER_DIR"
  stop picture TERM
  processes_down
  rm -rf "$state/consul" "$state/nomad" "$state/alloc_mounts" "$state/tmp"
  ports_free
  gpac_enters
  [ -e "$state/cgroups" ] || nomad_cgroups >"$state/cgroups"
}

ports_free() {
  local taken
  # Listeners of TCP, and anything of UDP; the port is in hexadecimal at the end of the second column.
  for taken in $(awk 'FNR > 1 && ($4 == "0A" || FILENAME ~ /udp/) { print substr($2, length($2) - 3) }' \
    /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 2>/dev/null); do
    taken=$((16#$taken))
    [ "$taken" -lt "$port" ] || [ "$taken" -ge $((port + dev_ports)) ] ||
      die "port $taken is taken; the ports $port to $((port + dev_ports - 1)) must be free: name others' first in DIONYSIA_CLUSTER_PORTS"
  done
}

# Only root's GPAC runs as somebody else, who must be able to reach the runs.
gpac_enters() {
  [ "$(id -u)" = 0 ] || return 0
  setpriv --reuid=nobody --clear-groups test -x "$state" ||
    die "GPAC does not run as root, and nobody can't enter $state: name another folder in DIONYSIA_CLUSTER_DIR"
}

# marked: the processes that an agent started, or that descend from one that it started. Tasks outlive a
# Nomad that is killed; some, as nginx, write over their environment. A process that ends meanwhile, or is
# another user's, can't be read: that is no error. Children come before their parents.
marked() {
  local pids
  pids=$({ grep -lzxFs "DIONYSIA_CLUSTER_OF=$state" /proc/[0-9]*/environ || true; } | tr -dc '0-9\n' | tr '\n' ' ')
  [ -n "$pids" ] || return 0
  { cat /proc/[0-9]*/stat || true; } 2>/dev/null | awk -v pids="$pids" '
    { pid = $1; sub(/^.*\) /, ""); if ($1 != "Z") parent[pid] = $2 }
    END {
      n = split(pids, list, " ")
      for (i = 1; i <= n; i++) ours[list[i]] = 1
      do {
        grew = 0
        for (p in parent) if (!(p in ours) && (parent[p] in ours)) grew = ours[p] = 1
      } while (grew)
      for (p in ours) if (p in parent) {
        depth = 0
        for (q = p; q in parent; q = parent[q]) depth++
        print depth, p
      }
    }' | sort -k 1,1nr -k 2,2n | cut -d ' ' -f 2
}

# All are stopped before any is killed: nginx starts another worker for one that ends before it does, and a
# process that has lost both its parent and the mark can't be found. Children are killed before their parents:
# the kernel continues a stopped group that loses its last parent, with a SIGHUP, of which nginx starts others.
processes_down() {
  local n pids
  stop nomad KILL # first: it would start again what ends
  for ((n = 0; n < 100; n++)); do
    pids=$(marked)
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086 # several
    kill -s STOP $pids 2>/dev/null || true
    [ "$(marked)" = "$pids" ] || continue # something was started meanwhile
    # shellcheck disable=SC2086
    kill -s KILL $pids 2>/dev/null || true
    sleep 0.1
  done
  [ -z "$(marked)" ] || die "these processes can't be ended: $(marked | tr '\n' ' ')"
  rm -f "$state/pid/consul"
}

hosts_down() {
  local mount
  processes_down
  [ "$(id -u)" = 0 ] || return 0
  # Root's Nomad has mounts, for secrets, and cgroups.
  while read -r _ mount _; do
    case $mount in "$state"/*) umount -l "$mount" || touch "$state/kept" ;; esac
  done </proc/self/mounts
  cgroups_down
}

# ── the agents ────────────────────────────────────────────────────────────────────────────────────────

# keys: those of a cluster of one host, and this host's files. Its own ports and folders come after them.
keys() {
  local consul nomad serf rpc
  "$state/bin/dionysia" cluster init "$state/secrets" --etc "$state/secrets/hosts/dev" \
    --host dev=127.0.0.1,server,redis,api,ingest,worker,router,edge >"$state/log/init.log" 2>&1 ||
    die "making keys failed: $(cat "$state/log/init.log")"
  consul=$(at consul) nomad=$(at nomad) serf=$(at nomad-serf) rpc=$(at nomad-rpc)
  cat >"$state/consul.hcl" <<EOT
bootstrap_expect = 0 # -dev is its own leader
ports {
  http     = $consul
  dns      = $(at dns)
  server   = $(at consul-rpc)
  serf_lan = $(at consul-serf)
  serf_wan = -1
}
EOT
  cat >"$state/nomad.hcl" <<EOT
ports {
  http = $nomad
  rpc  = $rpc
  serf = $serf
}
server {
  server_join {
    retry_join = ["127.0.0.1:$serf"]
  }
}
client {
  min_dynamic_port = $((port + 20))
  max_dynamic_port = $((port + dev_ports - 1))
  server_join {
    retry_join = ["127.0.0.1:$rpc"]
  }
  # Docker's driver would take another Nomad's containers on this machine for leftovers of its own.
  options {
    "driver.allowlist" = "raw_exec"
  }
}
consul {
  address = "127.0.0.1:$consul"
}
EOT
}

# agent NAME COMMAND…: starts it with what it and its tasks write elsewhere (Nomad's sockets, GPAC's settings)
# in the cluster's folder, and with the mark.
agent() {
  mkdir -p "$state/home" "$state/tmp"
  background "$1" env HOME="$state/home" TMPDIR="$state/tmp" DIONYSIA_CLUSTER_OF="$state" "${@:2}"
}

agents_up() {
  local etc=$state/secrets/hosts/dev bootstrap
  keys
  say "starting Consul and Nomad in development mode"
  mkdir -p "$state/consul"
  agent consul "$DIONYSIA_CONSUL" agent -dev -log-level=info -data-dir="$state/consul" \
    -config-file="$top/consul/server.hcl" -config-dir="$etc/consul.d" -config-file="$state/consul.hcl"
  on_agents "$state/bin/dionysia" cluster bootstrap "$state/secrets" --timeout 60s \
    --jwks-url "http://127.0.0.1:$(at nomad)/.well-known/jwks.json" >"$state/log/bootstrap.log" 2>&1 &
  bootstrap=$!
  # A Nomad that is refused at its start asks again only some time later.
  await 60 "Consul's tokens (tools/cluster.sh logs has bootstrap.log)" consul_tokens
  agent nomad "$DIONYSIA_NOMAD" agent -dev -log-level=INFO -data-dir="$state/nomad" \
    -config="$top/nomad/agent/client.hcl" -config="$top/nomad/agent/server.hcl" -config="$etc/nomad.d" -config="$state/nomad.hcl"
  wait "$bootstrap" || die "access control failed: $(cat "$state/log/bootstrap.log")"
  await 60 "Nomad being ready, with Consul" nomad_nodes
}

# The operator's is made last.
consul_tokens() {
  CONSUL_HTTP_TOKEN=$(cat "$state/secrets/consul.operator") on_agents "$DIONYSIA_CONSUL" acl token read -self
}

# ── the jobs ──────────────────────────────────────────────────────────────────────────────────────────

# All on one host: ports of our own, addresses in place of names that this machine can't resolve, nobody
# else to be, and no room for two of the api.
job_vars() {
  local vars=(bind=127.0.0.1) redis
  redis=("redis_state=redis://127.0.0.1:$(at redis-state)/0" "redis_live=redis://127.0.0.1:$(at redis-live)/0")
  [ "$1" = redis ] || [ "$1" = edge ] || vars+=(dionysia="$state/bin/dionysia")
  case $1 in
    redis) vars+=(redis_server="$DIONYSIA_REDIS_SERVER" data_dir="$state/redis" user= memory_mib=128
      state_port="$(at redis-state)" live_port="$(at redis-live)") ;;
    api) vars+=("${redis[@]}" port="$(at api)" spare_node=false user="$([ "$(id -u)" != 0 ] || echo root)" nomad="http://127.0.0.1:$(at nomad)") ;;
    ingest) vars+=(mediamtx="$DIONYSIA_MEDIAMTX" consul="127.0.0.1:$(at consul)" api="http://127.0.0.1:$(at api)"
      rtmp_port="$(at rtmp)" rtsp_port="$(at rtsp)" srt_port="$(at srt)" whip_port="$(at whip)" ice_port="$(at ice)") ;;
    worker) vars+=("${redis[@]}" gpac="$DIONYSIA_GPAC" data_dir="$state/dionysia" user= port="$(at origin)"
      consul="127.0.0.1:$(at consul)" cpu_capacity="${DIONYSIA_CPU_CAPACITY:-0}" cpu_mhz=200 memory_mib=512
      drain_timeout=0s kill_timeout=30s) ;;
    router) vars+=("${redis[@]}" consul_dns="127.0.0.1:$(at dns)" count=1 cache_mib=64 web_dir="${DIONYSIA_WEB_DIR:-}") ;;
    edge) vars+=(nginx="$DIONYSIA_NGINX" port="$(at edge)" cache_dir="$state/edge" cache_mib=256) ;;
  esac
  printf -- '-var=%s\n' "${vars[@]}"
}
