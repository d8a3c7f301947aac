# How a step changes the machine: each function says what it changed, or "unchanged", and with --check only
# says what it would change. What it puts there is noted in $notes, for uninstall.sh.
# shellcheck shell=bash

check=${check:-}
changes=0 kept=0
notes=/var/lib/dionysia-provision/notes

die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# unchanged WHAT / changing WHAT: the second is false with --check, and then nothing may be done.
unchanged() {
  kept=$((kept + 1))
  printf 'unchanged   %s\n' "$*"
}
changing() {
  changes=$((changes + 1))
  if [ -n "$check" ]; then
    printf 'would do    %s\n' "$*"
    return 1
  fi
  printf 'changed     %s\n' "$*"
}

# note KIND NAME: this came with us. Kinds: file, key, dir, user, package.
note() {
  [ -z "$check" ] || return 0
  grep -qxF "$1 $2" "$notes" 2>/dev/null && return
  mkdir -p "$(dirname "$notes")"
  printf '%s %s\n' "$1" "$2" >>"$notes"
}

# put_file MODE OWNER:GROUP PATH: its content comes on stdin. True when it changed.
put_file() {
  local mode=$1 owner=$2 path=$3 new
  new=$(mktemp)
  cat >"$new"
  if put_copy "$mode" "$owner" "$new" "$path"; then
    rm -f "$new"
  else
    rm -f "$new"
    return 1
  fi
}

# put_copy MODE OWNER:GROUP SOURCE PATH: true when it changed. A running program's file is replaced, not
# written over. It is noted as a file, or as what kind says.
put_copy() {
  local mode=$1 owner=$2 source=$3 path=$4
  if cmp -s "$source" "$path" && [ "$(stat -c '%a %U:%G' "$path")" = "$mode $owner" ]; then
    note "${kind:-file}" "$path"
    unchanged "$path"
    return 1
  fi
  changing "$path" || return 1
  # Explicitly: set -e is off in a function that is asked whether it succeeded.
  install -m "$mode" -o "${owner%:*}" -g "${owner#*:}" "$source" "$path.new" || die "$path can't be written"
  mv -f "$path.new" "$path" || die "$path can't be replaced"
  note "${kind:-file}" "$path" || die "$notes can't be written"
}

# put_dir MODE OWNER:GROUP PATH
put_dir() {
  if [ -d "$3" ] && [ "$(stat -c '%a %U:%G' "$3")" = "$1 $2" ]; then
    unchanged "$3/"
    return
  fi
  changing "$3/" || return 0
  [ -d "$3" ] || note dir "$3"
  install -d -m "$1" -o "${2%:*}" -g "${2#*:}" "$3"
}

# put_user NAME: a system user without a shell, with a group of the same name.
put_user() {
  if getent passwd "$1" >/dev/null; then
    unchanged "user $1"
    return
  fi
  changing "user $1" || return 0
  useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$1"
  note user "$1"
}

has_systemd() { [ -d /run/systemd/system ]; }

# enable_unit NAME: from the next boot on; it is started, or started again where restart is set, by
# start_units.
wanted=/etc/systemd/system/multi-user.target.wants
enable_unit() {
  if [ "$(readlink "$wanted/$1")" = "/etc/systemd/system/$1" ]; then
    unchanged "$1 is enabled"
    return
  fi
  changing "$1 is enabled" || return 0
  mkdir -p "$wanted"
  ln -sfn "/etc/systemd/system/$1" "$wanted/$1"
  note file "$wanted/$1"
  units_changed=yes
}

# disable_distribution_unit NAME…: a package's own service, in whose place ours runs.
disable_distribution_unit() {
  local unit link found
  for unit; do
    found=''
    for link in "$wanted/$unit" "/etc/systemd/system/${unit/-server/}"; do
      [ -L "$link" ] && found="$found $link"
    done
    if [ -z "$found" ]; then
      unchanged "$unit is disabled"
    elif changing "$unit is disabled"; then
      ! has_systemd || systemctl stop "$unit" || true
      # shellcheck disable=SC2086 # a list of links without blanks
      rm -f $found
      units_changed=yes
    fi
  done
}

# packages NAME…: from the distribution, by tools/deps.sh, which knows where GPAC is to be had.
packages() {
  local name missing=()
  for name; do
    if [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ]; then
      unchanged "package $name"
    elif changing "package $name"; then
      missing+=("$name")
    fi
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  XDG_CACHE_HOME=/var/cache "$tools/deps.sh" packages "${missing[@]}"
  for name in "${missing[@]}"; do note package "$name"; done
}
