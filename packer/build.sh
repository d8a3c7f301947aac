#!/usr/bin/env bash
# Makes an image with Packer, of what is built in bin (make build).
#
#   packer/build.sh bare-metal [PACKER OPTION…]    bin/image/dionysia-VERSION.qcow2, needs qemu-system-x86_64
#   packer/build.sh aws [PACKER OPTION…]           AMIs, by the AWS credentials that Packer finds
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
  bare-metal) only='qemu.*' ;;
  aws) only='amazon-ebs.*' ;;
  *) sed -n '2,/^set -e/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 2 ;;
esac
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ssh-keygen -q -t ed25519 -N '' -C 'packer, for one build' -f "$work/key"
mkdir "$work/seed"
echo 'instance-id: packer' >"$work/seed/meta-data"
printf '#cloud-config\nssh_authorized_keys:\n  - %s\n' "$(cat "$work/key.pub")" >"$work/seed/user-data"
tools/provision/bundle.sh "$work/bundle.tar.gz"
packer init packer
packer build -only "$only" -var "bundle=$work/bundle.tar.gz" -var "version=$(git describe --always --dirty)" \
  -var "seed=$work/seed" -var "ssh_key=$work/key" "$@" packer
