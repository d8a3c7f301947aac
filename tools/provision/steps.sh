# The steps of provision.sh. Each may run any number of times.
# shellcheck shell=bash

has_role() { [[ " $roles " == *" $1 "* ]]; }

step_packages() {
  local list=(ca-certificates)
  [ "$from" != release ] || list+=(curl unzip)
  if has_role redis; then list+=(redis-server redis-tools); fi
  if has_role worker; then list+=(gpac); fi
  if has_role edge; then list+=(nginx); fi
  packages "${list[@]}"
  if has_role redis; then disable_distribution_unit redis-server.service; fi
  if has_role edge; then disable_distribution_unit nginx.service; fi
}

# has_nvidia: a display or 3D controller (PCI class 03) of NVIDIA (vendor 10de).
has_nvidia() {
  local device
  for device in "${DIONYSIA_SYS:-/sys}"/bus/pci/devices/*; do
    [ "$(cat "$device/vendor" 2>/dev/null)" = 0x10de ] || continue
    [[ $(cat "$device/class") == 0x03* ]] && return
  done
  return 1
}

step_nvidia() {
  if ! has_role worker || ! has_nvidia; then
    echo "            no NVIDIA card for a worker here: no driver"
    return
  fi
  local id arch kernel
  id=$(. /etc/os-release && echo "$ID")
  arch=$(dpkg --print-architecture)
  case $id in
    debian)
      add_non_free
      packages "linux-headers-$arch" nvidia-kernel-dkms nvidia-smi libnvidia-ml1 libnvidia-encode1 libcuda1 nvidia-persistenced
      ;;
    ubuntu)
      kernel=generic
      [[ $(uname -r) != *-*-* ]] || kernel=$(uname -r | sed 's/^.*-//')
      packages "linux-headers-$kernel" "nvidia-headless-$NVIDIA_UBUNTU-server" "nvidia-utils-$NVIDIA_UBUNTU-server" \
        "libnvidia-encode-$NVIDIA_UBUNTU-server"
      ;;
    *) die "no known NVIDIA driver for $id: install it, then run this again with --no-nvidia" ;;
  esac
}

# Debian's non-free, from the mirror that apt uses already.
add_non_free() {
  local codename mirror
  codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
  # shellcheck disable=SC2016 # the names are apt's
  mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk -v c="$codename" '$1 == "Debian" && $2 == c && !n++ { print $3 }')
  [ -n "$mirror" ] || die "apt has no source for Debian $codename to take a mirror from"
  put_file 644 root:root /etc/apt/sources.list.d/dionysia-non-free.sources <<END || true
# for NVIDIA's driver, by tools/provision of Dionysia
Types: deb
URIs: $mirror
Suites: $codename
Components: contrib non-free non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
}

step_users() {
  put_user dionysia
  put_user consul
  put_dir 750 root:dionysia /etc/dionysia
  put_dir 755 dionysia:dionysia /var/lib/dionysia
  put_dir 750 root:consul /etc/consul.d
  put_dir 750 consul:consul /var/lib/consul
  if [ -n "$nomad" ]; then
    put_dir 700 root:root /etc/nomad.d
    put_dir 711 root:root /var/lib/nomad # allocations' users pass through it
  fi
  if has_role redis && [ -z "$nomad" ]; then put_dir 750 redis:redis /var/lib/dionysia/redis; fi
}

step_system() {
  if put_copy 644 root:root "$files/sysctl.conf" /etc/sysctl.d/60-dionysia.conf && has_systemd; then
    sysctl -q -p /etc/sysctl.d/60-dionysia.conf
  fi
  put_dir 755 root:root /etc/security/limits.d
  put_copy 644 root:root "$files/limits.conf" /etc/security/limits.d/60-dionysia.conf || true
}

# step_binaries: into /usr/local/bin, each asked for its version once it is there.
step_binaries() {
  local name list=(consul)
  [ -z "$nomad" ] || list+=(nomad)
  for name in "${list[@]}"; do
    case $from in
      release) from_release "$name" ;;
      *) from_folder "$name" ;;
    esac
  done
  from_folder dionysia
  if has_role ingest; then from_folder mediamtx; fi
}

from_folder() {
  [ -x "$binaries/$1" ] || die "$binaries/$1 is missing: put the program there, or name another folder with --binaries"
  if put_copy 755 root:root "$binaries/$1" "/usr/local/bin/$1"; then restart="$restart $1"; fi
}

pinned_version() { # NAME
  local version=${1^^}_VERSION
  echo "${!version}"
}

# from_release NAME: HashiCorp's archive, checked against tools/versions before it is opened.
from_release() {
  local name=$1 arch version sum archive dir
  version=$(pinned_version "$name")
  if [[ $("/usr/local/bin/$name" version 2>/dev/null) == "${name^} v$version"* ]]; then
    note file "/usr/local/bin/$name"
    unchanged "/usr/local/bin/$name"
    return
  fi
  changing "/usr/local/bin/$name, version $version" || return 0
  arch=$(dpkg --print-architecture) sum=${name^^}_SHA256_$arch
  [ -n "${!sum:-}" ] || die "tools/versions has no $sum: bring $name for $arch along with --binaries"
  archive=${name}_${version}_linux_$arch.zip
  dir=$(mktemp -d)
  curl --fail --silent --show-error --location --retry 3 -o "$dir/$archive" "$releases/$name/$version/$archive"
  echo "${!sum}  $dir/$archive" | sha256sum --check --quiet || die "$archive is not what tools/versions pins"
  unzip -q "$dir/$archive" "$name" -d "$dir"
  install -m 755 -o root -g root "$dir/$name" "/usr/local/bin/$name.new"
  mv -f "/usr/local/bin/$name.new" "/usr/local/bin/$name"
  rm -rf "$dir"
  note file "/usr/local/bin/$name"
  restart="$restart $name"
}

# step_configuration: the files of consul/ and nomad/agent/ for this machine's kinds of agent, and site.hcl with
# what its options say. Agents read a folder's files by name, a later one wins: site.hcl comes after server.hcl and
# client.hcl. Keys, certificates and tokens are in host.hcl.
step_configuration() {
  local kind=client
  if has_role server; then kind=server; fi
  put_configuration consul "$top/consul/$kind.hcl" /etc/consul.d root:consul
  put_site consul /etc/consul.d root:consul < <(site_consul)
  [ -n "$nomad" ] || return 0
  if has_role server; then put_configuration nomad "$top/nomad/agent/server.hcl" /etc/nomad.d root:root; fi
  [ -z "$jobs" ] || put_configuration nomad "$top/nomad/agent/client.hcl" /etc/nomad.d root:root
  put_site nomad /etc/nomad.d root:root < <(site_nomad)
}

put_configuration() { # PROGRAM FILE TARGET OWNER
  [ -e "$2" ] || die "$2 is missing"
  if put_copy 640 "$4" "$2" "$3/$(basename "$2")"; then restart="$restart $1"; fi
}

put_site() { # PROGRAM TARGET OWNER: its content comes on stdin; without --bind the file is the operator's
  [ -n "$bind" ] || return 0
  if put_file 640 "$3" "$2/site.hcl"; then restart="$restart $1"; fi
}

site_consul() {
  printf 'bind_addr  = "%s"\n' "$bind"
  [ -z "$join" ] || printf 'retry_join = ["%s"]\n' "${join//,/\", \"}"
  if has_role server; then printf 'bootstrap_expect = %d\n' "$servers"; fi
}

# Nomad's servers find each other through Consul.
site_nomad() {
  printf 'advertise {\n  http = "%s"\n  rpc  = "%s"\n  serf = "%s"\n}\n' "$bind" "$bind" "$bind"
  if has_role server; then printf 'server {\n  bootstrap_expect = %d\n}\n' "$servers"; fi
  [ -z "$jobs" ] || printf 'client {\n  meta {\n    dionysia = "%s"\n  }\n}\n' "$jobs"
}

# step_keys: the machine's part of what `dionysia cluster init` made. Consul runs as a user of its own.
step_keys() {
  [ -n "$keys" ] || return 0
  put_keys consul 640 root:consul
  [ -z "$nomad" ] || put_keys nomad 600 root:root
}

put_keys() { # PROGRAM MODE OWNER
  local file
  for file in "$keys/$1.d"/*; do
    if kind=key put_copy "$2" "$3" "$file" "/etc/$1.d/$(basename "$file")"; then restart="$restart $1"; fi
  done
}

# step_dns: names under .consul, which the jobs use, are the host's own agent's.
step_dns() {
  local resolver=$dns
  [ "$resolver" != systemd-resolved ] || packages systemd-resolved
  if [ "$resolver" = auto ]; then
    resolver=none
    [ ! -x /lib/systemd/systemd-resolved ] || resolver=systemd-resolved
    [ ! -x /usr/sbin/dnsmasq ] || resolver=dnsmasq
  fi
  case $resolver in
    systemd-resolved)
      put_dir 755 root:root /etc/systemd/resolved.conf.d
      put_dns "$top/consul/dns/systemd-resolved.conf" /etc/systemd/resolved.conf.d/consul.conf
      ;;
    dnsmasq)
      packages dnsmasq
      put_dns "$top/consul/dns/dnsmasq.conf" /etc/dnsmasq.d/10-consul.conf
      ;;
    none) echo "            this host does not resolve .consul: see --dns" ;;
  esac
}

put_dns() { # FILE TARGET
  if put_copy 644 root:root "$1" "$2" && has_systemd; then systemctl try-restart "$resolver"; fi
}

step_units() {
  local unit
  put_unit consul
  if [ -n "$nomad" ]; then
    put_unit nomad
  else
    for unit in $(bare_units); do put_unit "$unit"; done
    if has_role redis && put_copy 640 root:redis "$files/redis.conf" /etc/dionysia/redis.conf; then
      restart="$restart dionysia-redis"
    fi
  fi
  start_units
}

# bare_units: without Nomad, systemd runs the roles.
bare_units() {
  if has_role redis; then echo dionysia-redis; fi
  if has_role api; then echo dionysia-api; fi
  if has_role ingest; then echo mediamtx dionysia-ingest; fi
  if has_role worker; then echo dionysia-worker; fi
  if has_role router; then echo dionysia-router; fi
}

put_unit() {
  if put_copy 644 root:root "$files/$1.service" "/etc/systemd/system/$1.service"; then
    units_changed=yes
    restart="$restart $1"
  fi
  enable_unit "$1.service"
}

# start_units: where systemd runs. A unit whose configuration is still missing is skipped by its own
# condition. Roles run as long as their streams: a new program takes their place only with --restart.
start_units() {
  has_systemd && [ -z "$check" ] || return 0
  local unit program
  [ -z "$units_changed" ] || systemctl daemon-reload
  for unit in consul ${nomad:+nomad} $([ -n "$nomad" ] || bare_units); do
    program=${unit%%-*} # a new dionysia concerns each of its roles
    if [ -n "$restart_roles" ] && [[ " $restart " == *" $unit "* || " $restart " == *" $program "* ]]; then
      systemctl restart "$unit"
    else
      systemctl start "$unit"
    fi
  done
}
