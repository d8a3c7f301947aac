#!/usr/bin/env bash
# Packs what a machine needs to be provisioned into one archive: provision.sh with what it reads, and the
# programs. Packer and Terraform bring it along. The same contents make the same archive, byte for byte.
#
#   tools/provision/bundle.sh ARCHIVE [BINARIES]
#
#   ARCHIVE   such as bin/dionysia-bundle.tar.gz; there: tar -xzf ARCHIVE -C /opt/dionysia
#   BINARIES  folder with dionysia, and with consul, nomad and mediamtx where they shall not be fetched or are
#             needed (default: bin)
set -euo pipefail

[[ $# -ge 1 && $1 != -* ]] || { sed -n '2,/^set -e/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 2; }
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
archive=$(realpath "$1")
binaries=$(realpath "${2:-$top/bin}")
[ -x "$binaries/dionysia" ] || { echo "bundle.sh: $binaries/dionysia is missing: make build" >&2 && exit 1; }

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# tools/deps.sh reads what the go.mod files pin.
(cd "$top" && cp --parents -r go.mod tools/deps.sh tools/deps tools/versions tools/*/go.mod tools/web/package*.json \
  tools/provision consul nomad/agent "$dir")
mkdir "$dir/bin"
for name in dionysia consul nomad mediamtx; do
  [ ! -x "$binaries/$name" ] || ln -s "$binaries/$name" "$dir/bin/$name"
done
chmod -R u=rwX,go=rX "$dir"
tar --create --dereference --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$dir" . |
  gzip -n -1 >"$archive.new"
mv "$archive.new" "$archive"
