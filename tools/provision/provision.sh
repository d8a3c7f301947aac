#!/usr/bin/env bash
# Makes a Debian 12 or Ubuntu 24.04 machine a part of a Dionysia cluster. Packer, Terraform and Vagrant run
# this same script; it can be run again at any time and then says what was unchanged.
#
#   tools/provision/provision.sh [OPTION…] [STEP…]       as root
#
#   --keys FOLDER      what `dionysia cluster init` made for this machine, its hosts/NAME; without it, agents start once
#                      host.hcl is there
#   --role ROLE        server (of Consul and Nomad), redis, api, ingest, worker, router or edge; may be given several
#                      times (default: as --keys says, else worker)
#   --bind ADDRESS     this machine's address in the cluster, where it is not as --keys says
#   --join A,B,C       the addresses of the Consul servers
#   --servers N        how many servers there are (default: 1)
#   --without-nomad    systemd runs the roles, by /etc/dionysia/ROLE.env
#   --from WHERE       release: Consul and Nomad from HashiCorp, checked by tools/versions
#                      folder: from --binaries (default), as tools/deps.sh built them
#   --binaries FOLDER  where dionysia, consul, nomad and mediamtx lie (default: bin)
#   --dns RESOLVER     what resolves .consul on this host: systemd-resolved or dnsmasq, installed where it is
#                      missing; none; auto (default): one of the two if it is there
#   --no-nvidia        no driver, even if there is a card
#   --restart          what changed is restarted; without it, only what does not run yet is started
#   --check            change nothing; say what would change, and exit with 1 if anything would
#
# Steps, in this order, all by default: packages nvidia users system binaries configuration keys dns units
#
# Without a running systemd, as in a chroot or an image, units are enabled for the next boot and sysctls
# are left alone.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=$(dirname "$here")
top=$(dirname "$tools")
files=$here/files
PATH=$PATH:/usr/sbin:/sbin
umask 022
# shellcheck source=tools/versions
. "$tools/versions"
# shellcheck source=tools/provision/lib.sh
. "$here/lib.sh"
# shellcheck source=tools/provision/steps.sh
. "$here/steps.sh"

releases=${DIONYSIA_RELEASES:-https://releases.hashicorp.com}
all_steps='packages nvidia users system binaries configuration keys dns units'
roles='' jobs='' dns=auto bind='' join='' servers=1 nomad=yes from=folder binaries=$top/bin nvidia=yes restart_roles='' steps=''
keys='' restart='' units_changed=''

usage() {
  sed -n '2,/^set -e/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --keys | --role | --bind | --join | --servers | --dns | --from | --binaries)
      [ $# -ge 2 ] || die "$1 needs a value"
      ;;
  esac
  case $1 in
    --keys) keys=$2 && shift ;;
    --role) roles="$roles $2" && shift ;;
    --bind) bind=$2 && shift ;;
    --join) join=$2 && shift ;;
    --servers) servers=$2 && shift ;;
    --dns) dns=$2 && shift ;;
    --from) from=$2 && shift ;;
    --binaries) binaries=$2 && shift ;;
    --without-nomad) nomad='' ;;
    --no-nvidia) nvidia='' ;;
    --restart) restart_roles=yes ;;
    --check) check=yes ;;
    -h | --help) usage ;;
    -*) die "there is no option $1; --help lists them" ;;
    *) steps="$steps $1" ;;
  esac
  shift
done
if [ -n "$keys" ]; then
  [ -e "$keys/consul.d/host.hcl" ] || die "--keys is $keys, not a folder hosts/NAME of \`dionysia cluster init\`"
  roles=${roles:-$(cat "$keys/roles")}
fi
roles=${roles:-worker}
for role in $roles; do
  [[ $role =~ ^(server|redis|api|ingest|worker|router|edge)$ ]] ||
    die "--role is $role, not server, redis, api, ingest, worker, router or edge"
  [ "$role" = server ] || jobs=${jobs:+$jobs,}$role
done
for step in $steps; do
  [[ " $all_steps " == *" $step "* ]] || die "there is no step $step, only: $all_steps"
done
[[ $servers =~ ^[1-9][0-9]*$ ]] || die "--servers is $servers, not a number from 1"
[[ $dns =~ ^(systemd-resolved|dnsmasq|none|auto)$ ]] || die "--dns is $dns, not systemd-resolved, dnsmasq, none or auto"
[[ $from =~ ^(release|folder)$ ]] || die "--from is $from, not release or folder"
[[ $bind$join =~ ^[0-9A-Za-z.:,-]*$ ]] || die "--bind and --join take addresses, --join with commas between"
[ "$(id -u)" = 0 ] || die "only root can change this machine"
command -v apt-get >/dev/null || die "this machine has no apt-get: only Debian and Ubuntu are known"

for step in ${steps:-$all_steps}; do
  [ "$step" != nvidia ] || [ -n "$nvidia" ] || continue
  "step_$step"
done
if [ -n "$check" ]; then
  printf '%d would change, %d unchanged\n' "$changes" "$kept"
  [ "$changes" = 0 ]
else
  printf '%d changed, %d unchanged\n' "$changes" "$kept"
fi
