# shellcheck shell=bash
# One host, for whoever isn't root: a Consul and a Nomad in development mode (-dev) on 127.0.0.1, each with
# this repository's configuration of servers and clients, and every job on them. This file takes the place
# of hosts.sh, agents.sh and acl.sh; what it defines again of jobs.sh is different here.
: "${state:?}" "${top:?}" "${port:?}" "${DIONYSIA_CONSUL:=}" "${DIONYSIA_NOMAD:=}" "${DIONYSIA_FFMPEG:=}"

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

instances=(redis-state:1 redis-live:1 api:1 ingest:1 mediamtx:1 worker:1 origin:1 router:1 edge:1)

on() { die "there is one host only, this one: run the command itself"; }
host_kill() { die "there is one host only, this one: killing hosts needs 'up' as root, without --dev"; }
into() { entry=(); }
consul() { CONSUL_HTTP_TOKEN=$(secret consul.management uuid) CONSUL_HTTP_ADDR=127.0.0.1:$(at consul) "$DIONYSIA_CONSUL" "$@"; }
nomad() { NOMAD_TOKEN=$(secret nomad.token uuid) NOMAD_ADDR=http://127.0.0.1:$(at nomad) "$DIONYSIA_NOMAD" "$@"; }
dionysia() { DIONYSIA_API=http://127.0.0.1:$(at api) DIONYSIA_TOKEN_FILE=$state/secrets/admin.token "$state/bin/dionysia" "$@"; }
forward_up() { :; } # everything listens on its own port already

# An agent in development mode keeps nothing: when one has ended, everything starts again, with the secrets
# and the Redis that are there.
hosts_up() {
  # Secrets lie in files here, which other users could read; root's GPAC is another user.
  [ "$(id -u)" = 0 ] || chmod 700 "$state"
  running consul >/dev/null && running nomad >/dev/null && return 0
  [ "${#state}" -le 80 ] || die "the path $state is too long for sockets in it: name a shorter one in DIONYSIA_CLUSTER_DIR"
  stop picture TERM
  processes_down
  rm -rf "$state"/secrets/*.done "$state/nomad" "$state/alloc_mounts" "$state/tmp"
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
# Nomad that is killed; some, as nginx, write over their environment.
marked() {
  local pids
  pids=$(grep -lzxFs "DIONYSIA_CLUSTER_OF=$state" /proc/[0-9]*/environ | tr -dc '0-9\n' | tr '\n' ' ')
  [ -n "$pids" ] || return 0
  { cat /proc/[0-9]*/stat; } 2>/dev/null | awk -v pids="$pids" '
    { pid = $1; sub(/^.*\) /, ""); if ($1 != "Z") parent[pid] = $2 }
    END {
      n = split(pids, list, " ")
      for (i = 1; i <= n; i++) ours[list[i]] = 1
      do {
        grew = 0
        for (p in parent) if (!(p in ours) && (parent[p] in ours)) grew = ours[p] = 1
      } while (grew)
      for (p in ours) if (p in parent) print p
    }'
}

processes_down() {
  local n pids
  stop nomad KILL # first: it would start again what ends
  for ((n = 0; n < 100; n++)); do
    pids=$(marked)
    [ -n "$pids" ] || break
    # shellcheck disable=SC2086 # several
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

# tls NAME COMMAND…: makes certificates in a folder, once.
tls() {
  local dir=$state/secrets/tls/$1
  shift
  [ ! -e "$dir/made" ] || return 0
  rm -rf "$dir"
  mkdir -p "$dir"
  (
    umask 077
    cd "$dir"
    "$1" tls ca create -days 365
    "$1" tls cert create -server "${@:2}" -days 365
  ) >"$state/log/certificates.log" 2>&1 || die "making certificates failed: $state/log/certificates.log"
  touch "$dir/made"
}

consul_config() {
  local tls=$state/secrets/tls/consul
  cat <<EOT
node_name        = "dev"
datacenter       = "dc1"
bootstrap_expect = 0
encrypt          = "$(secret consul.gossip "$DIONYSIA_CONSUL" keygen)"
ports {
  http     = $(at consul)
  dns      = $(at dns)
  server   = $(at consul-rpc)
  serf_lan = $(at consul-serf)
  serf_wan = -1
}
acl {
  tokens {
    agent              = "$(secret consul.agent uuid)"
    dns                = "$(secret consul.dns uuid)"
    initial_management = "$(secret consul.management uuid)"
  }
}
tls {
  internal_rpc {
    ca_file   = "$tls/consul-agent-ca.pem"
    cert_file = "$tls/dc1-server-consul-0.pem"
    key_file  = "$tls/dc1-server-consul-0-key.pem"
  }
}
EOT
}

nomad_config() {
  local tls=$state/secrets/tls/nomad
  cat <<EOT
name       = "dev"
datacenter = "dc1"
data_dir   = "$state/nomad"
ports {
  http = $(at nomad)
  rpc  = $(at nomad-rpc)
  serf = $(at nomad-serf)
}
server {
  bootstrap_expect = 1
  encrypt          = "$(secret nomad.gossip "$DIONYSIA_NOMAD" operator gossip keyring generate)"
}
client {
  network_interface = "lo"
  min_dynamic_port  = $((port + 20))
  max_dynamic_port  = $((port + dev_ports - 1))
  # Docker's would take another Nomad's containers on this machine for leftovers of its own.
  options {
    "driver.allowlist" = "raw_exec"
  }
  meta {
    dionysia = "redis,api,ingest,worker,router,edge"
  }
}
consul {
  address = "127.0.0.1:$(at consul)"
  token   = "$(secret consul.nomad uuid)"
}
tls {
  ca_file   = "$tls/nomad-agent-ca.pem"
  cert_file = "$tls/global-server-nomad.pem"
  key_file  = "$tls/global-server-nomad-key.pem"
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
  tls consul "$DIONYSIA_CONSUL" -dc dc1
  tls nomad "$DIONYSIA_NOMAD" -region global
  consul_config | private "$state/secrets/consul.hcl"
  nomad_config | private "$state/secrets/nomad.hcl"
  say "starting Consul and Nomad in development mode"
  agent consul "$DIONYSIA_CONSUL" agent -dev -log-level=info \
    -config-file="$top/consul/server.hcl" -config-file="$state/secrets/consul.hcl"
  await 40 "Consul" consul_leads
  consul_access
  agent nomad "$DIONYSIA_NOMAD" agent -dev -log-level=INFO \
    -config="$top/nomad/agent/client.hcl" -config="$top/nomad/agent/server.hcl" -config="$state/secrets/nomad.hcl"
  await 40 "Nomad" nomad_leads
  await 30 "Nomad's access control" nomad_access
  nomad_policies
  identities
  await 60 "Nomad being ready, with Consul" nomad_ready
}

consul_leads() { consul operator raft list-peers | grep -q leader; }
nomad_leads() { nomad_as_nobody operator api /v1/status/leader | grep -q :; }
nomad_ready() {
  local node
  node=$(nomad node status -t '{{range .}}{{.ID}} {{.Status}}{{end}}')
  [ "${node#* }" = ready ] && nomad node status -verbose "${node% *}" | grep -q '^consul.version '
}

# ── access control ────────────────────────────────────────────────────────────────────────────────────

# create WHAT ARG…: consul acl WHAT create; that it is there already is no error.
create() {
  local said
  said=$(consul acl "$1" create "${@:2}" 2>&1) || case $said in
    *"already exists"* | *"already in use"* | *"Provided SecretID is already"*) ;;
    *) die "consul acl $1 create failed: $said" ;;
  esac
}

consul_access() {
  local name
  [ ! -e "$state/secrets/consul.done" ] || return 0
  say "making Consul's policies and tokens"
  for name in "$top"/consul/policies/*.hcl; do
    create policy -name="dionysia-$(basename "$name" .hcl)" -rules="@$name"
  done
  for name in worker ingest edge; do create role -name="dionysia-$name" -policy-name="dionysia-$name"; done
  create token -description="agent" -secret="$(secret consul.agent uuid)" -node-identity=dev:dc1
  create token -description="DNS" -secret="$(secret consul.dns uuid)" -templated-policy=builtin/dns
  create token -description="Nomad" -secret="$(secret consul.nomad uuid)" -policy-name=dionysia-nomad-client \
    -policy-name=dionysia-nomad-server
  create token -description="people" -secret="$(secret consul.operator uuid)" -policy-name=dionysia-operator
  touch "$state/secrets/consul.done"
}

nomad_access() { nomad acl token self || nomad_as_nobody acl bootstrap "$state/secrets/nomad.token"; }
nomad_as_nobody() { NOMAD_ADDR=http://127.0.0.1:$(at nomad) "$DIONYSIA_NOMAD" "$@"; }

# Consul takes Nomad's word for what a task or a service is.
identities() {
  [ ! -e "$state/secrets/identities.done" ] || return 0
  cat >"$state/auth-method.json" <<EOT
{
  "JWKSURL": "http://127.0.0.1:$(at nomad)/.well-known/jwks.json",
  "JWTSupportedAlgs": ["RS256"],
  "BoundAudiences": ["consul.io"],
  "ClaimMappings": {
    "nomad_namespace": "nomad_namespace",
    "nomad_job_id": "nomad_job_id",
    "nomad_task": "nomad_task",
    "nomad_service": "nomad_service"
  }
}
EOT
  await 30 "Consul knowing Nomad's keys" auth_method
  create binding-rule -method=nomad-workloads -description="services that Nomad registers" \
    -bind-type=service -bind-name="\${value.nomad_service}" -selector='"nomad_service" in value'
  create binding-rule -method=nomad-workloads -description="tasks, by their job" \
    -bind-type=role -bind-name="dionysia-\${value.nomad_job_id}" -selector='"nomad_service" not in value'
  touch "$state/secrets/identities.done"
}

auth_method() {
  consul acl auth-method read -name=nomad-workloads ||
    consul acl auth-method create -type=jwt -name=nomad-workloads -description="Nomad's workloads" \
      -config="@$state/auth-method.json"
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
    api) vars+=("${redis[@]}" port="$(at api)" spare_node=false user= nomad="http://127.0.0.1:$(at nomad)") ;;
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
