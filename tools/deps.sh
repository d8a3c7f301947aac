#!/usr/bin/env bash
# Gets, or builds, what Dionysia runs on and is checked with. What is there already is used as it is.
#
#   tools/deps.sh run              what `make run` needs: Go, Redis, ffmpeg, GPAC, Consul, mediamtx, the players
#   tools/deps.sh cluster          the same, and what `make cluster` needs: Nomad, nginx, as root iproute2
#   tools/deps.sh test             the same as cluster, and Chromium and gcc for the tests
#   tools/deps.sh bench            the same as test
#   tools/deps.sh lint             Go, golangci-lint, shellcheck
#   tools/deps.sh go               Go alone
#   tools/deps.sh packages NAME…   as root: only these packages of the distribution
#   tools/deps.sh env              print the parts that are there, as lines for a shell to eval
#
# Packages come from the distribution, through apt. The rest comes through Go's module proxy and npm's
# registry, as those two tools are set up here, and is kept in ${XDG_CACHE_HOME:-~/.cache}/dionysia:
#
#   go-VERSION/                  a Go toolchain, where the machine's own is too old
#   bin/NAME-VERSION/NAME        consul, nomad, mediamtx, golangci-lint
#   web-LOCKHASH/                hls.min.js, dash.all.min.js
#   log/NAME.log                 the last output of each step
#
# A variable that `env` prints may be set beforehand: DIONYSIA_GPAC=/opt/gpac/bin/gpac make run
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=$top/tools
cache=${XDG_CACHE_HOME:-${HOME:?neither HOME nor XDG_CACHE_HOME is set}/.cache}/dionysia
PATH=$PATH:/usr/sbin:/sbin # nginx and ip live there, and an ordinary user's PATH lacks it
# shellcheck source=tools/versions
. "$tools/versions"

# ── saying ────────────────────────────────────────────────────────────────────────────────────────────

step=0 steps=0 part=''
begin() { # NAME: the next step
  step=$((step + 1)) part=$1
}
say() { printf '[%d/%d] %s: %s\n' "$step" "$steps" "$part" "$*"; }
die() {
  printf 'tools/deps.sh: %s\n' "$*" >&2
  exit 1
}

beat=''
stop_beat() {
  [ -z "$beat" ] || { kill "$beat" && wait "$beat"; } 2>/dev/null || true
  beat=''
}
trap stop_beat EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# quietly LOG COMMAND…: runs it with its output in log/LOG.log, says every 30 s that it still does, and
# shows the log's end when it fails.
quietly() {
  local log=$cache/log/$1.log start=$SECONDS
  shift
  mkdir -p "$cache/log"
  (
    exec 8<> <(:) # a pipe that nothing is written to: `read -t` sleeps on it without a child process
    while :; do
      read -rt 30 -u 8 || true
      say "still at it after $((SECONDS - start)) s"
    done
  ) 9>&- &
  beat=$!
  local rc=0
  "$@" >"$log" 2>&1 </dev/null 9>&- || rc=$?
  stop_beat
  if [ "$rc" != 0 ]; then
    tail -n 30 "$log" >&2
    die "$part failed (exit status $rc); all of its output is in $log"
  fi
}

# ── doing ─────────────────────────────────────────────────────────────────────────────────────────────

# shellcheck source=tools/deps/find.sh
. "$tools/deps/find.sh"
# shellcheck source=tools/deps/packages.sh
. "$tools/deps/packages.sh"
# shellcheck source=tools/deps/get.sh
. "$tools/deps/get.sh"

# One at a time: a second `make` waits for the first one's builds, and then finds them.
lock() {
  mkdir -p "$cache/build"
  exec 9>"$cache/lock"
  if ! flock -n 9; then
    echo "another tools/deps.sh is at work: waiting for it"
    flock 9
  fi
}

case ${1:-} in
  run | cluster | test | bench)
    lock
    steps=5
    [ "$1" = run ] || steps=6
    get_packages "$1"
    get_go
    get_web
    get_mediamtx
    get_consul
    [ "$1" = run ] || get_nomad
    ;;
  lint)
    lock
    steps=3
    get_packages lint
    get_go
    get_lint
    ;;
  go)
    lock
    steps=2
    get_packages go
    get_go
    ;;
  packages)
    shift
    [ $# -gt 0 ] || die "which packages?"
    [ "$(id -u)" = 0 ] || die "only root can install packages"
    steps=1
    begin packages
    install_packages "$@"
    ;;
  env) print_env ;;
  *)
    sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
