#!/usr/bin/env bash
# init.sh HOST DIRECTORY: the first process of a host, inside its namespaces.
set -eu
host=$1 dir=$2
# /proc is still the outer one here: its self is this process as those outside see it.
read -r pid _ </proc/self/stat
mount --make-rprivate /
mount -t proc proc /proc
# The host's own disk. It is at /srv so that GPAC's user can pass, wherever the cluster's folder lies.
mount --bind "$dir/srv" /srv
mount --bind "$dir/resolv.conf" /etc/resolv.conf
hostname "$host"
cd /
echo "$pid" >"$dir/pid.new"
mv "$dir/pid.new" "$dir/pid"
trap 'exit 0' TERM
# Bash reaps what is orphaned while it waits.
while :; do
  sleep 3600 &
  wait $! || true
done
