# A disk image for bare metal: Debian 12's own cloud image for real hardware, provisioned. Write it to a disk
# with `qemu-img convert -O raw dionysia.qcow2 /dev/…`, or let a network boot system do it; cloud-init reads the
# machine's seed as everywhere.

variable "image_url" {
  type    = string
  default = "https://cloud.debian.org/images/cloud/bookworm/latest/debian-12-generic-amd64.qcow2"
}

variable "image_checksum" {
  description = "sha512:…, or file: and the address of Debian's list of checksums. Pin the first where images must be the same again."
  type        = string
  default     = "file:https://cloud.debian.org/images/cloud/bookworm/latest/SHA512SUMS"
}

variable "seed" {
  description = "Folder with cloud-init's user-data, which lets ssh_key in, and meta-data."
  type        = string
}

variable "ssh_key" {
  description = "Private key of the builder, made for this build."
  type        = string
}

variable "accelerator" {
  type    = string
  default = "kvm"
}

source "qemu" "bare-metal" {
  iso_url          = var.image_url
  iso_checksum     = var.image_checksum
  disk_image       = true
  disk_size        = "10G"
  format           = "qcow2"
  accelerator      = var.accelerator
  headless         = true
  memory           = 2048
  cpus             = 2
  http_directory   = var.seed
  output_directory = "bin/image"
  vm_name          = "dionysia-${var.version}.qcow2"

  qemuargs = [
    ["-smbios", "type=1,serial=ds=nocloud-net;s=http://{{ .HTTPIP }}:{{ .HTTPPort }}/"],
  ]

  ssh_username         = "debian"
  ssh_private_key_file = var.ssh_key
  ssh_timeout          = "10m"
  shutdown_command     = "sudo poweroff"
}

build {
  sources = ["source.qemu.bare-metal"]

  provisioner "file" {
    source      = var.bundle
    destination = "/tmp/bundle.tar.gz"
  }

  # The driver waits for the machine that has the card: provision.sh installs it there.
  provisioner "shell" {
    inline = concat(["cloud-init status --wait"], local.unpack, [
      "sudo ${local.provision} --from ${var.from} --dns systemd-resolved ${local.steps}",
    ], local.clean)
  }
}
