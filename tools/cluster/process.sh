# shellcheck shell=bash
# Processes that outlast the script, found again by id and start time: an id alone may be another's by now.
: "${state:?}"

# started PID: when it started, in clock ticks since boot; nothing if it is gone or a zombie.
started() {
  local line
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 0
  line=${line##*) }
  # shellcheck disable=SC2086 # the fields are wanted
  set -- $line
  [ "$1" = Z ] || echo "${20}"
}

remember() { # NAME PID
  printf '%s %s\n' "$2" "$(started "$2")" >"$state/pid/$1"
}

# running NAME: prints its id and succeeds if it still runs.
running() {
  local pid start
  { read -r pid start <"$state/pid/$1"; } 2>/dev/null || return 1
  [ -n "$start" ] && [ "$(started "$pid")" = "$start" ] && echo "$pid"
}

# background NAME COMMAND…: starts it in a session of its own, unless it runs. Its output goes to a log.
background() {
  local what=$1
  shift
  ! running "$what" >/dev/null || return 0
  setsid "$@" </dev/null >>"$state/log/$what.log" 2>&1 &
  remember "$what" $!
}

# stop NAME SIGNAL: signals it, waits for its end, and kills it after 10 s.
stop() {
  local pid n
  if pid=$(running "$1"); then
    kill -s "$2" "$pid" 2>/dev/null || true
    for ((n = 0; n < 100; n++)); do
      running "$1" >/dev/null || break
      sleep 0.1
    done
    ! running "$1" >/dev/null || kill -s KILL "$pid" 2>/dev/null || true
  fi
  rm -f "$state/pid/$1"
}

# await SECONDS WHAT COMMAND…: until the command succeeds.
await() {
  local limit=$1 what=$2 deadline=$((SECONDS + $1))
  shift 2
  until "$@" >/dev/null 2>"$state/log/await.log"; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      cat "$state/log/await.log" >&2
      die "waited $limit s for $what (tools/cluster.sh logs shows the logs; down removes it)"
    fi
    sleep 0.3
  done
}

private() { # FILE: standard input, for its owner's eyes
  (
    umask 077
    cat >"$1.new"
    mv "$1.new" "$1"
  )
}
