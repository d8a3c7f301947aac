# What every image has in common. packer/build.sh sets the variables without a default.

variable "bundle" {
  description = "The archive that tools/provision/bundle.sh made."
  type        = string
}

variable "version" {
  description = "The name of what is in the bundle, as git describes it."
  type        = string
}

variable "from" {
  description = "Where Consul and Nomad come from: release, checked by tools/versions, or folder, from the bundle."
  type        = string
  default     = "release"
}

locals {
  # One image serves every role: a machine's own are chosen when it first starts, by the same script.
  provision = "/opt/dionysia/tools/provision/provision.sh --role server --role redis --role api --role ingest --role worker --role router --role edge"
  steps     = "packages users system binaries dns"

  unpack = [
    "sudo mkdir -p /opt/dionysia",
    "sudo tar -xzf /tmp/bundle.tar.gz -C /opt/dionysia",
    "rm /tmp/bundle.tar.gz",
  ]

  # Nothing that must differ between machines, or that lets the builder in, stays in the image.
  clean = [
    "sudo apt-get clean",
    "sudo cloud-init clean --logs",
    "sudo rm -f /etc/ssh/ssh_host_* /root/.ssh/authorized_keys $HOME/.ssh/authorized_keys",
    "sudo truncate -s 0 /etc/machine-id",
    "sync",
  ]
}
