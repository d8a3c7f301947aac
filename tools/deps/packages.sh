# shellcheck shell=bash
# The distribution's packages, for tools/deps.sh, which sources this.

# missing_packages GROUP: the packages to install, one a line.
missing_packages() {
  [ -s /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
  # Any Go can fetch the Go that we need.
  find_go >/dev/null || command -v go >/dev/null || echo golang-go
  case $1 in
    run | cluster | test | bench)
      find_redis >/dev/null || echo redis-server
      { find_ffmpeg && find_ffprobe; } >/dev/null || echo ffmpeg
      find_web >/dev/null || command -v npm >/dev/null || echo npm
      find_gpac >/dev/null || echo gpac
      ;;
  esac
  case $1 in
    cluster | test | bench)
      # gcc is for Nomad, which has parts in C, and for the race detector.
      if [ "$1" != cluster ] || ! find_nomad >/dev/null; then
        command -v gcc >/dev/null || echo gcc
        [ -e /usr/include/stdlib.h ] || echo libc6-dev
      fi
      [ "$(id -u)" != 0 ] || command -v ip >/dev/null || echo iproute2
      find_nginx >/dev/null || echo nginx
      ;;
  esac
  case $1 in
    test | bench)
      find_chromium >/dev/null || echo chromium
      command -v redis-cli >/dev/null || echo redis-tools
      command -v ssh-keygen >/dev/null || echo openssh-client
      command -v debootstrap >/dev/null || [ "$(id -u)" != 0 ] || echo debootstrap
      ;;
    lint) find_shellcheck >/dev/null || echo shellcheck ;;
  esac
}

get_packages() { # GROUP
  local missing
  begin packages
  mapfile -t missing < <(missing_packages "$1")
  if [ ${#missing[@]} = 0 ]; then
    say "all there"
  elif [ "$(id -u)" = 0 ]; then
    install_packages "${missing[@]}"
  elif sudo -n true 2>/dev/null; then
    say "installing ${missing[*]} with sudo"
    sudo -n "$tools/deps.sh" packages "${missing[@]}"
  else
    say "only root can install ${missing[*]}; please run this, then try again:"
    printf '\n    sudo %s packages %s\n\n' "$tools/deps.sh" "${missing[*]}"
    exit 1
  fi
}

apt() { DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y -o DPkg::Lock::Timeout=600 "$@"; }

# Lists that can't be renewed, say of a third party's source, are no reason to stop: a package that is
# then not found is.
update_lists() { quietly apt-update eval 'apt update || echo "going on with the lists that are there"'; }

has_package() { [[ $(apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }

# install_packages NAME…: as root. The servers among them are for Dionysia to start: while apt works, a
# policy-rc.d keeps it from starting them as services of the machine.
install_packages() {
  command -v apt-get >/dev/null || die "there is no apt-get here: please install $* yourself"
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\n# tools/deps.sh of Dionysia is installing packages\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f /usr/sbin/policy-rc.d; stop_beat' EXIT
  fi
  say "installing $*"
  update_lists
  local package distribution
  distribution=$(. /etc/os-release && echo "${ID:-} ${VERSION_CODENAME:-}")
  for package; do
    case "$package on $distribution" in
      'gpac on debian bookworm') has_package gpac || add_bullseye ;;
      'chromium on ubuntu '*) die "Ubuntu has Chromium only as a snap: install a Chromium or Chrome and name it in DIONYSIA_CHROMIUM" ;;
    esac
    has_package "$package" || die "$distribution has no package $package: install it in another way, and put it on PATH"
  done
  quietly apt-install apt install --no-install-recommends "$@"
}

# Debian 12 has no GPAC; Debian 11's installs beside its libraries. It is taken from the mirror that apt
# uses already, at a priority that changes no other package.
add_bullseye() {
  local mirror
  # shellcheck disable=SC2016 # the names are apt's
  mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
    awk '$1 == "Debian" && $2 == "bookworm" && !n++ { print $3 }')
  [ -n "$mirror" ] || die "apt has no source for Debian bookworm to take a mirror from"
  say "Debian 12 has no gpac: adding Debian 11's, from $mirror"
  printf '%s\n' 'Package: *' 'Pin: release n=bullseye' 'Pin-Priority: 100' >/etc/apt/preferences.d/dionysia-bullseye
  printf '%s\n' '# for gpac, by tools/deps.sh of Dionysia' 'Types: deb' "URIs: $mirror" 'Suites: bullseye' \
    'Components: main' 'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' \
    >/etc/apt/sources.list.d/dionysia-bullseye.sources
  update_lists
}
