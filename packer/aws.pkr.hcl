# Images for AWS: one for machines without a card, one built on a machine with a card, which has the driver.

variable "region" {
  type    = string
  default = "eu-central-1"
}

source "amazon-ebs" "cpu" {
  region        = var.region
  instance_type = "c7i.xlarge"
  ami_name      = "dionysia-cpu-${var.version}"
  ssh_username  = "admin"

  source_ami_filter {
    owners      = ["136693071363"] # Debian
    most_recent = true

    filters = {
      name                = "debian-12-amd64-*"
      virtualization-type = "hvm"
      root-device-type    = "ebs"
    }
  }
}

source "amazon-ebs" "gpu" {
  region        = var.region
  instance_type = "g6.xlarge"
  ami_name      = "dionysia-gpu-${var.version}"
  ssh_username  = "admin"

  source_ami_filter {
    owners      = ["136693071363"] # Debian
    most_recent = true

    filters = {
      name                = "debian-12-amd64-*"
      virtualization-type = "hvm"
      root-device-type    = "ebs"
    }
  }

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = 20
    delete_on_termination = true
  }
}

build {
  sources = ["source.amazon-ebs.cpu", "source.amazon-ebs.gpu"]

  provisioner "file" {
    source      = var.bundle
    destination = "/tmp/bundle.tar.gz"
  }

  # The step nvidia does nothing where there is no card.
  provisioner "shell" {
    inline = concat(["cloud-init status --wait"], local.unpack, [
      "sudo ${local.provision} --from ${var.from} --dns systemd-resolved nvidia ${local.steps}",
    ], local.clean)
  }
}
