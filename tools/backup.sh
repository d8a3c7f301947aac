#!/usr/bin/env bash
# Backups of what a Dionysia cluster can't make again: Redis, Consul and Nomad. Each save makes one file, and
# PATH.sha256 beside it; each restore checks that first.
#
#   tools/backup.sh save redis FILE       Redis's append-only file, rewritten, as a tar; on Redis's own machine
#   tools/backup.sh save consul FILE      a snapshot of Consul's servers
#   tools/backup.sh save nomad FILE       a snapshot of Nomad's servers: jobs, variables, ACLs, and its keys if they
#                                         are kept there
#   tools/backup.sh restore redis FILE    into the folder REDIS_DIR of a Redis that does not run
#   tools/backup.sh restore consul FILE
#   tools/backup.sh restore nomad FILE
#
# Whom it asks: REDIS_ADDR (127.0.0.1:6379), with the password in the file REDIS_PASSWORD_FILE;
# CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN_FILE and the others that Consul knows; NOMAD_ADDR, NOMAD_TOKEN and
# the others that Nomad knows. DIONYSIA_CONSUL and DIONYSIA_NOMAD name their programs.
#
# A backup holds secrets: it is made for its owner alone. Keep it encrypted and elsewhere.
set -euo pipefail
umask 077

die() {
  echo "backup.sh: $*" >&2
  exit 1
}

consul() { command "${DIONYSIA_CONSUL:-consul}" "$@"; }
nomad() { command "${DIONYSIA_NOMAD:-nomad}" "$@"; }

addr=${REDIS_ADDR:-127.0.0.1:6379}
redis() {
  local out
  out=$(REDISCLI_AUTH=${REDIS_PASSWORD_FILE:+$(cat "$REDIS_PASSWORD_FILE")} \
    redis-cli --no-auth-warning -h "${addr%:*}" -p "${addr##*:}" "$@") || die "Redis at $addr: $out"
  case $out in
    ERR* | NOAUTH* | WRONGPASS* | NOPERM*) die "Redis at $addr: $out" ;;
  esac
  printf '%s\n' "$out"
}
setting() { redis CONFIG GET "$1" | sed -n 2p; }
info() { redis INFO persistence | tr -d '\r' | sed -n "s/^$1://p"; }

# The files must not be rewritten while they are copied: automatic rewriting is off meanwhile, and set again
# whatever happens.
save_redis() {
  local dir name percentage
  [ "$(info aof_enabled)" = 1 ] || die "Redis at $addr has no append-only file: appendonly is off"
  dir=$(setting dir) name=$(setting appenddirname)
  percentage=$(setting auto-aof-rewrite-percentage)
  # shellcheck disable=SC2064 # now
  trap "redis CONFIG SET auto-aof-rewrite-percentage $percentage >/dev/null" EXIT
  redis CONFIG SET auto-aof-rewrite-percentage 0 >/dev/null
  wait_rewrite
  redis BGREWRITEAOF >/dev/null
  wait_rewrite
  [ "$(info aof_last_bgrewrite_status)" = ok ] || die "Redis at $addr could not rewrite its append-only file"
  [ -d "$dir/$name" ] || die "$dir/$name is not on this machine: run this where Redis runs"
  # The newest file grows while it is read. What is cut at its end is a command that came after the start,
  # and Redis leaves that out when it loads (aof-load-truncated).
  tar -C "$dir" --warning=no-file-changed -cf "$1" "$name" || [ $? = 1 ] || die "copying $dir/$name failed"
}

wait_rewrite() {
  while [ "$(info aof_rewrite_in_progress)" = 1 ] || [ "$(info aof_rewrite_scheduled)" = 1 ]; do sleep 0.1; done
}

restore_redis() {
  local dir=${REDIS_DIR:-} name owner
  [ -d "$dir" ] || die "REDIS_DIR must name the folder that Redis's setting dir names"
  [ ! -d "$dir/state" ] || die "$dir holds the folders of two Redis: REDIS_DIR must name $dir/state"
  [ -n "${REDIS_ADDR:-}" ] && redis-cli -h "${addr%:*}" -p "${addr##*:}" PING >/dev/null 2>&1 &&
    die "a Redis answers at $addr: stop it first, or it writes over what is restored"
  name=$(tar -tf "$1" | sed -n '1s,/.*,,p')
  [ -n "$name" ] || die "$1 holds no append-only file"
  owner=$(stat -c '%u:%g' "$dir")
  rm -rf "${dir:?}/$name.restoring"
  mkdir "$dir/$name.restoring"
  tar -C "$dir/$name.restoring" --strip-components=1 -xf "$1"
  [ "$(id -u)" != 0 ] || chown -R "$owner" "$dir/$name.restoring"
  # What was there stays, for the operator to remove.
  [ ! -e "$dir/$name" ] || mv "$dir/$name" "$dir/$name.before-$(date -u +%Y%m%dT%H%M%SZ)"
  mv "$dir/$name.restoring" "$dir/$name"
}

save_consul() { consul snapshot save "$1" && consul snapshot inspect "$1" >/dev/null; }
restore_consul() { consul snapshot restore "$1"; }
save_nomad() { nomad operator snapshot save "$1" && nomad operator snapshot inspect "$1" >/dev/null; }
restore_nomad() { nomad operator snapshot restore "$1"; }

if ! [[ $# = 3 && $1 =~ ^(save|restore)$ && $2 =~ ^(redis|consul|nomad)$ ]]; then
  sed -n '2,/^set -e/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
  exit 2
fi
file=$(realpath -m "$3")
if [ "$1" = save ]; then
  [ ! -e "$file" ] || die "$file is there already"
  [ -d "$(dirname "$file")" ] || die "$(dirname "$file") is no folder"
  "save_$2" "$file.part"
  mv "$file.part" "$file"
  (cd "$(dirname "$file")" && sha256sum "$(basename "$file")" >"$(basename "$file").sha256")
  echo "saved $2: $file, $(stat -c %s "$file") bytes"
else
  [[ -e $file && -e $file.sha256 ]] || die "$file or $file.sha256 is missing"
  (cd "$(dirname "$file")" && sha256sum --check --quiet "$(basename "$file").sha256") ||
    die "$file is not what was saved"
  "restore_$2" "$file"
  echo "restored $2 from $file"
fi
