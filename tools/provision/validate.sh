#!/usr/bin/env bash
# Has Terraform, Packer and Vagrant check their files here, each as far as it is on PATH and as far as it can
# without a network. What could not be checked is said.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CHECKPOINT_DISABLE=1

# quietly COMMAND…: its output only when it fails.
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log" >&2 && return 1; }; }

if command -v terraform >/dev/null; then
  quietly terraform fmt -check -recursive -diff terraform
  cp -r terraform/bare-metal "$work/bare-metal"
  quietly terraform -chdir="$work/bare-metal" init -backend=false -input=false
  quietly terraform -chdir="$work/bare-metal" validate
  echo "terraform: bare-metal is valid; aws is formatted (validating it needs its provider)"
else
  echo "terraform: not here, terraform/ was not checked"
fi

if command -v packer >/dev/null; then
  mkdir "$work/packer"
  cp packer/*.pkr.hcl "$work/packer"
  # A packer before 1.7 has its plugins and does not know the block that names them; a later one is used
  # without them here only where they are installed.
  if packer version | grep -q 'v1\.[0-6]\.' || ! timeout 60 packer init "$work/packer" >/dev/null 2>&1; then
    rm "$work/packer/plugins.pkr.hcl"
  fi
  quietly packer fmt -check -diff "$work/packer"
  if packer version | grep -q 'v1\.[0-6]\.' || [ -e "$work/packer/plugins.pkr.hcl" ]; then
    ssh-keygen -q -t ed25519 -N '' -f "$work/key"
    quietly packer validate -var bundle=packer/build.sh -var version=1 -var "seed=$work" -var "ssh_key=$work/key" \
      -var image_checksum=none "$work/packer"
    echo "packer: the images are valid"
  else
    echo "packer: the images are formatted (validating them needs Packer's plugins)"
  fi
else
  echo "packer: not here, packer/ was not checked"
fi

if command -v vagrant >/dev/null; then
  VAGRANT_HOME=$work/vagrant quietly vagrant validate --ignore-provider
  echo "vagrant: the Vagrantfile is valid"
else
  echo "vagrant: not here, the Vagrantfile was not checked"
fi
