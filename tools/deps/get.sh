# shellcheck shell=bash
# What is fetched or built, for tools/deps.sh, which sources this.

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
