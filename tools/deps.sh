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

# ── finding ───────────────────────────────────────────────────────────────────────────────────────────

at_least() { # HAVE WANT: versions such as 1.25.3
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

pinned() { # TOOL MODULE: the version that tools/TOOL/go.mod names, without its v
  awk -v m="$2" '$1 == m && $2 ~ /^v/ { print substr($2, 2); exit }' "$tools/$1/go.mod"
}
consul_version=$(pinned consul github.com/hashicorp/consul)
nomad_version=$(pinned nomad github.com/hashicorp/nomad)
mediamtx_version=$(pinned mediamtx github.com/bluenviron/mediamtx)
lint_version=$(pinned lint github.com/golangci/golangci-lint/v2)

# The newest Go that any of our go.mod files asks for.
go_wanted=$(awk '$1 == "go" { print $2 }' "$top/go.mod" "$tools"/*/go.mod | sort -V | tail -n 1)

# given VARIABLE: the path in it, if somebody set it.
given() { [ -n "${!1:-}" ] && command -v "${!1}"; }

for variable in GO CONSUL NOMAD MEDIAMTX GPAC REDIS_SERVER FFMPEG FFPROBE NGINX CHROMIUM GOLANGCI_LINT SHELLCHECK; do
  variable=DIONYSIA_$variable
  [ -z "${!variable:-}" ] || given "$variable" >/dev/null || die "$variable is set to ${!variable}, which can't be run"
done

find_go() {
  local go version
  given DIONYSIA_GO && return
  for go in "$(command -v go || true)" /usr/local/go/bin/go "$cache/go-$GO_VERSION/bin/go"; do
    [ -x "$go" ] || continue
    version=$(GOTOOLCHAIN=local "$go" env GOVERSION 2>/dev/null) || continue
    if at_least "${version#go}" "$go_wanted"; then
      echo "$go"
      return
    fi
  done
  return 1
}

# on_path NAME Name LEAST: its path, when it is of that version or later, and before 2.
on_path() {
  local path version
  path=$(command -v "$1") || return
  version=$("$path" version 2>/dev/null | sed -n "s/^$2 v//p")
  at_least "${version:-0}" "$3" && ! at_least "$version" 2 && echo "$path"
}
consul_least=1.20 nomad_least=1.10
find_consul() { given DIONYSIA_CONSUL || on_path consul Consul "$consul_least" || command -v "$cache/bin/consul-$consul_version/consul"; }
find_nomad() { given DIONYSIA_NOMAD || on_path nomad Nomad "$nomad_least" || command -v "$cache/bin/nomad-$nomad_version/nomad"; }

# passed_over NAME FOUND LEAST: says it when the one on PATH is not the one that was found.
passed_over() {
  local path version
  path=$(command -v "$1") && [ "$path" != "$2" ] && [[ $2 == "$cache"/* || -z $2 ]] || return 0
  version=$("$path" version 2>/dev/null | head -n 1)
  say "$path is ${version:-of no version that it tells}; $3 or later is needed, and before 2: it is not used"
}

# Only the pinned minor version will do: mediamtx renames settings and adds listeners between minors.
find_mediamtx() {
  local path
  given DIONYSIA_MEDIAMTX && return
  if path=$(command -v mediamtx); then
    case $("$path" --version 2>/dev/null) in
      "v${mediamtx_version%.*}".*)
        echo "$path"
        return
        ;;
    esac
  fi
  command -v "$cache/bin/mediamtx-$mediamtx_version/mediamtx"
}

find_gpac() { given DIONYSIA_GPAC || command -v gpac; }
find_redis() { given DIONYSIA_REDIS_SERVER || command -v redis-server; }
find_ffmpeg() { given DIONYSIA_FFMPEG || command -v ffmpeg; }
find_ffprobe() { given DIONYSIA_FFPROBE || command -v ffprobe; }
find_nginx() { given DIONYSIA_NGINX || command -v nginx; }
find_chromium() {
  given DIONYSIA_CHROMIUM || command -v chromium || command -v chromium-browser || command -v google-chrome
}
find_lint() { given DIONYSIA_GOLANGCI_LINT || command -v "$cache/bin/golangci-lint-$lint_version/golangci-lint"; }
find_shellcheck() { given DIONYSIA_SHELLCHECK || command -v shellcheck; }

web_dir=$cache/web-$(cat "$tools/web/package.json" "$tools/web/package-lock.json" | sha256sum | cut -c 1-12)
find_web() {
  local dir=${DIONYSIA_WEB_DIR:-$web_dir}
  [ -s "$dir/hls.min.js" ] && [ -s "$dir/dash.all.min.js" ] && echo "$dir"
}

# ── the distribution's packages ───────────────────────────────────────────────────────────────────────

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

# ── the rest ──────────────────────────────────────────────────────────────────────────────────────────

get_go() {
  begin "go"
  local go arch sum want got dl=$cache/build/go
  if go=$(find_go); then
    say "$("$go" env GOVERSION), $go"
    return
  fi
  go=$(command -v go) || die "there is no Go to fetch Go $go_wanted with: install any Go"
  arch=$("$go" env GOARCH) sum=GO_SUM_$arch want=''
  want=${!sum:-}
  [ -n "$want" ] || die "no pinned Go for $arch: install Go $go_wanted or later"
  say "$("$go" env GOVERSION) is older than $go_wanted: fetching $GO_VERSION (about 70 MB)"
  rm -rf "$dl"
  mkdir -p "$dl"
  quietly go env -C "$dl" GOMODCACHE="$dl" GOFLAGS=-modcacherw GOTOOLCHAIN=local \
    "$go" mod download -json "golang.org/toolchain@v0.0.1-go$GO_VERSION.linux-$arch"
  got=$(sed -n 's/.*"Sum": "\(.*\)".*/\1/p' "$cache/log/go.log")
  [ "$got" = "$want" ] || die "the fetched Go $GO_VERSION has the sum ${got:-(none)}, not the pinned $want"
  mv "$dl/golang.org/toolchain@v0.0.1-go$GO_VERSION.linux-$arch" "$dl/new"
  chmod +x "$dl"/new/bin/* "$dl"/new/pkg/tool/*/* # a module zip carries no modes
  rm -rf "$cache/go-$GO_VERSION"
  mv "$dl/new" "$cache/go-$GO_VERSION"
  rm -rf "$dl"
  find_go >/dev/null || die "the fetched Go in $cache/go-$GO_VERSION does not run"
}

# build_tool NAME VERSION DIRECTORY PACKAGE FLAG…: a binary into bin/NAME-VERSION/NAME, static unless cgo is 1.
build_tool() {
  local name=$1 version=$2 dir=$3 package=$4 bin=$cache/bin/$1-$2
  shift 4
  mkdir -p "$bin"
  quietly "$name" nice env -C "$dir" GOWORK=off CGO_ENABLED="${cgo:-0}" "$(find_go)" build -trimpath -ldflags='-s -w' "$@" \
    -o "$bin/$name.new" "$package"
  mv "$bin/$name.new" "$bin/$name"
  say "built $bin/$name"
}

get_consul() {
  begin "consul"
  passed_over consul "$(find_consul)" "$consul_least"
  if find_consul >/dev/null; then
    say "$(find_consul)"
    return
  fi
  say "building $consul_version (about 5 min on 2 cores)"
  build_tool consul "$consul_version" "$tools/consul" github.com/hashicorp/consul -mod=readonly
}

# Its exec driver has parts in C: without cgo it doesn't compile.
get_nomad() {
  begin "nomad"
  passed_over nomad "$(find_nomad)" "$nomad_least"
  if find_nomad >/dev/null; then
    say "$(find_nomad)"
    return
  fi
  say "building $nomad_version (about 6 min on 2 cores)"
  local cgo=1
  build_tool nomad "$nomad_version" "$tools/nomad" github.com/hashicorp/nomad -mod=readonly -tags=hashicorpmetrics
}

# mediamtx's own `go generate` makes files that its module does not hold: they go into a vendored copy.
get_mediamtx() {
  begin "mediamtx"
  if find_mediamtx >/dev/null; then
    say "$(find_mediamtx)"
    return
  fi
  say "building $mediamtx_version (about 2 min on 2 cores)"
  local dir=$cache/build/mediamtx internal
  rm -rf "$dir"
  mkdir -p "$dir"
  cp "$tools/mediamtx/go.mod" "$tools/mediamtx/go.sum" "$dir"
  # -e: the two files that it embeds are missing still.
  quietly mediamtx-vendor nice env -C "$dir" GOWORK=off "$(find_go)" mod vendor -e
  internal=$dir/vendor/github.com/bluenviron/mediamtx/internal
  printf 'v%s' "$mediamtx_version" >"$internal/core/VERSION"
  cp "$(find_web)/hls.min.js" "$internal/servers/hls/hls.min.js"
  # On ARM it embeds a Raspberry Pi camera's driver, which nothing here uses.
  for camera in mtxrpicam_32 mtxrpicam_64; do
    mkdir -p "$internal/staticsources/rpicamera/$camera"
    echo "left out" >"$internal/staticsources/rpicamera/$camera/README"
  done
  build_tool mediamtx "$mediamtx_version" "$dir" github.com/bluenviron/mediamtx -mod=vendor
  rm -rf "$dir"
}

get_web() {
  begin "players"
  if find_web >/dev/null; then
    say "$(find_web)"
    return
  fi
  [ -z "${DIONYSIA_WEB_DIR:-}" ] || die "DIONYSIA_WEB_DIR is set to $DIONYSIA_WEB_DIR, which lacks a player"
  say "getting hls.js and dash.js from npm"
  local dir=$cache/build/web
  rm -rf "$dir"
  mkdir -p "$dir/out"
  cp "$tools/web/package.json" "$tools/web/package-lock.json" "$tools/web/.npmrc" "$dir"
  quietly web env -C "$dir" npm ci
  cp "$dir/node_modules/hls.js/dist/hls.min.js" "$dir/node_modules/dashjs/dist/modern/umd/dash.all.min.js" "$dir/out"
  rm -rf "$web_dir"
  mv "$dir/out" "$web_dir"
  rm -rf "$dir"
}

get_lint() {
  begin "golangci-lint"
  if find_lint >/dev/null; then
    say "$(find_lint)"
    return
  fi
  say "building $lint_version (about 2 min on 2 cores)"
  build_tool golangci-lint "$lint_version" "$tools/lint" github.com/golangci/golangci-lint/v2/cmd/golangci-lint -mod=readonly
}

print_env() {
  local go
  show() { # VARIABLE VALUE
    [ -z "$2" ] || printf 'export %s=%q\n' "$1" "$2"
  }
  if go=$(find_go); then
    show DIONYSIA_GO "$go"
    # shellcheck disable=SC2016 # PATH is for the shell that evals this
    printf 'export PATH=%q:"$PATH"\n' "$(dirname "$go")"
  fi
  show DIONYSIA_CONSUL "$(find_consul || true)"
  show DIONYSIA_NOMAD "$(find_nomad || true)"
  show DIONYSIA_MEDIAMTX "$(find_mediamtx || true)"
  show DIONYSIA_GPAC "$(find_gpac || true)"
  show DIONYSIA_REDIS_SERVER "$(find_redis || true)"
  show DIONYSIA_FFMPEG "$(find_ffmpeg || true)"
  show DIONYSIA_FFPROBE "$(find_ffprobe || true)"
  show DIONYSIA_WEB_DIR "$(find_web || true)"
  show DIONYSIA_CHROMIUM "$(find_chromium || true)"
  show DIONYSIA_NGINX "$(find_nginx || true)"
  show DIONYSIA_GOLANGCI_LINT "$(find_lint || true)"
  show DIONYSIA_SHELLCHECK "$(find_shellcheck || true)"
}

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
