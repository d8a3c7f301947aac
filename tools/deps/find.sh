# shellcheck shell=bash
# What is there already, for tools/deps.sh, which sources this.

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
