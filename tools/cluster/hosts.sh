# shellcheck shell=bash
# The hosts: each a network, mount, process and host-name namespace. A host's first process is init.sh; when
# it is killed the kernel kills the whole host, and its mounts go with it.
: "${state:?}" "${name:?}" "${lib:?}"

all_hosts=(server ingest w1 w2)
# In namespaces of our own no address can clash with this machine's.
address() {
  case $1 in
    server) echo 10.90.0.1 ;;
    ingest) echo 10.90.0.2 ;;
    w1) echo 10.90.0.3 ;;
    w2) echo 10.90.0.4 ;;
    *) die "there is no host $1: they are ${all_hosts[*]}" ;;
  esac
}

netns() { echo "/run/netns/$name-$1"; }

network_up() {
  local host ns
  if [ ! -e "$(netns net)" ]; then
    ip netns add "$name-net"
    ip -n "$name-net" link set lo up
    ip -n "$name-net" link add br0 type bridge
    ip -n "$name-net" link set br0 up
  fi
  for host in "${all_hosts[@]}"; do
    ns=$name-$host
    [ ! -e "$(netns "$host")" ] || continue
    ip netns add "$ns"
    ip -n "$ns" link set lo up
    ip -n "$name-net" link add "$host" type veth peer name eth0 netns "$ns"
    ip -n "$name-net" link set "$host" master br0 up
    ip -n "$ns" addr add "$(address "$host")/24" dev eth0
    ip -n "$ns" link set eth0 up
  done
}

host_up() { # HOST
  local dir=$state/hosts/$1
  ! running "host-$1" >/dev/null || return 0
  mkdir -p "$dir/srv"
  # What Consul doesn't know is nowhere: a host here has no other network.
  printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:2\n' >"$dir/resolv.conf"
  rm -f "$dir/pid"
  setsid nsenter --net="$(netns "$1")" unshare --mount --uts --pid --fork \
    "$lib/init.sh" "$1" "$dir" </dev/null >>"$state/log/$1-init.log" 2>&1 &
  await 10 "host $1" test -s "$dir/pid"
  remember "host-$1" "$(cat "$dir/pid")"
}

# on HOST COMMAND…: runs it there, as root.
on() {
  local host=$1 entry
  shift
  if [ ! -d "$state/hosts" ]; then
    "$@"
    return
  fi
  into "$host"
  "${entry[@]}" "$@"
}

# into HOST: sets entry to what runs a command there, as root.
into() {
  local pid
  pid=$(running "host-$1") || die "host $1 does not run"
  entry=(nsenter --target "$pid" --net --mount --uts --pid --)
}

hosts_up() {
  local host
  [ -e "$state/cgroups" ] || nomad_cgroups >"$state/cgroups"
  network_up
  for host in "${all_hosts[@]}"; do host_up "$host"; done
}

host_kill() { # HOST
  local pid n
  pid=$(running "host-$1") || return 0
  kill -s KILL "$pid" 2>/dev/null || true
  for ((n = 0; n < 100; n++)); do
    running "host-$1" >/dev/null || break
    sleep 0.1
  done
  rm -f "$state/pid/host-$1"
}

hosts_down() {
  local host pid
  rm -f "$state/kept"
  for host in "${all_hosts[@]}"; do
    # One whose start was cut off has its id in its own folder alone.
    if [ ! -e "$state/pid/host-$host" ] && [ -s "$state/hosts/$host/pid" ]; then
      pid=$(cat "$state/hosts/$host/pid")
      case $({ tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null) in
        *"$state/hosts/$host"*) remember "host-$host" "$pid" ;;
      esac
    fi
    host_kill "$host"
  done
  [ "$(id -u)" = 0 ] || return 0
  for host in "${all_hosts[@]}" net; do
    [ ! -e "$(netns "$host")" ] || ip netns delete "$name-$host" || touch "$state/kept"
  done
  cgroups_down
}

# The folders of cgroups that Nomad makes, the deepest first.
nomad_cgroups() {
  find /sys/fs/cgroup -maxdepth 2 \( -name nomad -o -name nomad.slice \) -type d -exec find {} -depth -type d \; 2>/dev/null || true
}

# Nomad leaves its cgroups behind. Only those that were not there before go, and only when empty.
cgroups_down() {
  local left
  [ -e "$state/cgroups" ] || return 0
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    left=$(nomad_cgroups | grep -vxFf "$state/cgroups") || return 0
    xargs rmdir <<<"$left" 2>/dev/null && return 0
    sleep 0.3 # the processes in them have been killed, and may take a moment to go
  done
}
