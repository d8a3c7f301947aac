# A Dionysia cluster on AWS, with GPU nodes, from the image that packer/aws.pkr.hcl makes. Every machine has the
# address that this file gives it, so that servers are known before they start.

terraform {
  required_version = ">= 1.4.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.0"
    }
  }
}

provider "aws" {
  region = var.region
}

locals {
  # Each group of machines has 100 addresses of the subnet, its servers' from .10 on.
  groups = {
    server = { first = 10, count = var.servers, type = var.server_type, roles = ["server", "redis", "api"] }
    cpu    = { first = 110, count = var.cpu_workers, type = var.cpu_worker_type, roles = ["worker"] }
    gpu    = { first = 210, count = var.gpu_workers, type = var.gpu_worker_type, roles = ["worker"] }
    ingest = { first = 310, count = var.ingests, type = var.ingest_type, roles = ["ingest"] }
    edge   = { first = 410, count = var.edges, type = var.edge_type, roles = ["router", "edge"] }
  }

  machines = merge([
    for group, g in local.groups : {
      for n in range(g.count) : "${group}-${n + 1}" => {
        address = cidrhost(var.cidr, g.first + n)
        type    = g.type
        roles   = g.roles
        gpu     = group == "gpu"
      }
    }
  ]...)

  join = join(",", [for n in range(var.servers) : cidrhost(var.cidr, local.groups.server.first + n)])
}

data "aws_ami" "cpu" {
  most_recent = true
  owners      = ["self"]
  name_regex  = "^dionysia-cpu-"
}

data "aws_ami" "gpu" {
  count       = var.gpu_workers > 0 ? 1 : 0
  most_recent = true
  owners      = ["self"]
  name_regex  = "^dionysia-gpu-"
}

resource "aws_instance" "machine" {
  for_each = local.machines

  ami                         = each.value.gpu ? data.aws_ami.gpu[0].id : data.aws_ami.cpu.id
  instance_type               = each.value.type
  subnet_id                   = aws_subnet.dionysia.id
  private_ip                  = each.value.address
  associate_public_ip_address = true
  key_name                    = var.key_name
  user_data_replace_on_change = false # an upgrade drains and replaces by hand: docs/operations/upgrade.md

  vpc_security_group_ids = concat(
    [aws_security_group.inside.id],
    contains(each.value.roles, "ingest") ? [aws_security_group.ingest.id] : [],
    contains(each.value.roles, "edge") ? [aws_security_group.edge.id] : [],
  )

  # The programs and packages are in the image; only this machine's part is done here. Keys follow over SSH
  # (docs/operations/cluster.md): user data can be read by everything on the machine.
  user_data = <<-EOT
    #!/bin/sh
    exec /opt/dionysia/tools/provision/provision.sh ${join(" ", [for role in each.value.roles : "--role ${role}"])} \
      --bind ${each.value.address} --join ${local.join} --servers ${var.servers} --no-nvidia --dns systemd-resolved
  EOT

  metadata_options {
    http_tokens = "required"
  }

  root_block_device {
    volume_size = var.disk_gib
    encrypted   = true
  }

  tags = { Name = "dionysia-${each.key}" }

  lifecycle {
    ignore_changes = [ami] # a new image is for new machines
  }
}
