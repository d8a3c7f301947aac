#!/usr/bin/env bash
# Takes back what provision.sh put on this machine, as it noted it: programs, units, configuration, users.
#
#   tools/provision/uninstall.sh [--purge] [--packages]    as root
#
#   --purge     also the data of Consul, Nomad, Redis and Dionysia, and their keys in /etc
#   --packages  also the distribution's packages that provision.sh asked for
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
notes=/var/lib/dionysia-provision/notes
purge='' packages=''
for option; do
  case $option in
    --purge) purge=yes ;;
    --packages) packages=yes ;;
    *) sed -n '2,/^set -e/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 2 ;;
  esac
done
[ "$(id -u)" = 0 ] || { echo "uninstall.sh: only root can change this machine" >&2 && exit 1; }
[ -e "$notes" ] || { echo "nothing of provision.sh is here" && exit 0; }

noted() { sed -n "s/^$1 //p" "$notes" | sort -r; }

if [ -d /run/systemd/system ]; then
  for unit in $(noted file | grep '^/etc/systemd/system/[^/]*\.service$'); do
    systemctl disable --now "$(basename "$unit")" || true
  done
fi
noted file | while read -r path; do
  rm -f "$path"
  echo "removed     $path"
done
[ ! -d /run/systemd/system ] || systemctl daemon-reload
if [ -n "$purge" ]; then
  noted key | while read -r path; do
    rm -f "$path"
    echo "removed     $path"
  done
fi
noted dir | while read -r path; do
  if [ -n "$purge" ]; then
    rm -rf --one-file-system "$path"
  else
    rmdir "$path" 2>/dev/null || true # it holds what others put there
  fi
  [ -d "$path" ] && echo "kept        $path/" || echo "removed     $path/"
done
# A user stays as long as data of his stay, or his number might come to another.
if [ -n "$purge" ]; then
  noted user | while read -r user; do
    userdel "$user"
    echo "removed     user $user"
  done
fi
if [ -n "$packages" ]; then
  mapfile -t list < <(noted package)
  [ ${#list[@]} = 0 ] || DEBIAN_FRONTEND=noninteractive apt-get -q -y purge "${list[@]}"
  DEBIAN_FRONTEND=noninteractive apt-get -q -y autoremove --purge
  rm -f /etc/apt/sources.list.d/dionysia-*.sources /etc/apt/preferences.d/dionysia-bullseye
fi
if [ -n "$purge" ]; then
  rm -rf /var/lib/dionysia-provision
else
  # What is left for --purge to remove.
  grep -E '^(key|dir|user|package) ' "$notes" >"$notes.new" || true
  mv "$notes.new" "$notes"
fi
