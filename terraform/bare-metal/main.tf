# Makes machines that run Debian 12 or Ubuntu 24.04 a Dionysia cluster, over SSH. It needs no provider but
# Terraform's own terraform_data. docs/operations/provisioning.md shows how it is used.

terraform {
  required_version = ">= 1.4.0"
}

locals {
  servers = [for name in sort(keys(var.hosts)) : var.hosts[name] if contains(var.hosts[name].roles, "server")]

  options = {
    for name, host in var.hosts : name => join(" ", concat(
      [for role in host.roles : "--role ${role}"],
      ["--bind ${coalesce(host.bind, host.address)}"],
      length(local.servers) == 0 ? [] : [
        "--join ${join(",", [for server in local.servers : coalesce(server.bind, server.address)])}",
        "--servers ${length(local.servers)}",
      ],
      ["--from ${var.from}", "--dns ${var.dns}"],
      var.nomad ? [] : ["--without-nomad"],
      var.restart ? ["--restart"] : [],
    ))
  }

  keys = { for name in keys(var.hosts) : name => var.keys == null ? "" : "${pathexpand(var.keys)}/hosts/${name}" }
}

# A machine that belongs to the cluster. It lives as long as the machine is listed; what runs there changes by
# `provisioned` alone, so that a new version never uninstalls the old one first.
resource "terraform_data" "host" {
  for_each = var.hosts

  # A provisioner that runs on destroy sees nothing but this.
  input = {
    address     = each.value.address
    port        = each.value.port
    user        = each.value.user
    host_key    = each.value.host_key
    private_key = pathexpand(var.private_key_file)
    sudo        = each.value.user == "root" ? "" : "sudo "
    uninstall   = var.purge ? "uninstall.sh --purge" : "uninstall.sh"
  }

  connection {
    type        = "ssh"
    host        = self.output.address
    port        = self.output.port
    user        = self.output.user
    host_key    = self.output.host_key
    private_key = file(self.output.private_key)
    timeout     = "2m"
  }

  provisioner "remote-exec" {
    when = destroy
    inline = [
      "set -e",
      "[ ! -d /opt/dionysia ] || ${self.output.sudo}/opt/dionysia/tools/provision/${self.output.uninstall}",
      "${self.output.sudo}rm -rf /opt/dionysia",
    ]
  }
}

# What is installed there: again whenever the bundle or the options change.
resource "terraform_data" "provisioned" {
  for_each = var.hosts

  input            = terraform_data.host[each.key].output
  triggers_replace = [filesha256(var.bundle), local.options[each.key]]

  connection {
    type        = "ssh"
    host        = self.input.address
    port        = self.input.port
    user        = self.input.user
    host_key    = self.input.host_key
    private_key = file(self.input.private_key)
    timeout     = "5m"
  }

  provisioner "remote-exec" {
    inline = ["rm -rf .dionysia-bundle && mkdir -m 700 .dionysia-bundle"]
  }

  provisioner "file" {
    source      = var.bundle
    destination = ".dionysia-bundle/bundle.tar.gz"
  }

  provisioner "remote-exec" {
    inline = [
      "set -e",
      "${self.input.sudo}rm -rf /opt/dionysia.new",
      "${self.input.sudo}mkdir -p /opt/dionysia.new",
      "${self.input.sudo}tar -xzf .dionysia-bundle/bundle.tar.gz -C /opt/dionysia.new",
      "rm -rf .dionysia-bundle",
      "${self.input.sudo}rm -rf /opt/dionysia",
      "${self.input.sudo}mv /opt/dionysia.new /opt/dionysia",
      "${self.input.sudo}/opt/dionysia/tools/provision/provision.sh ${local.options[each.key]}",
    ]
  }
}

# The machines' keys, over SSH, after the scripts that put them there. Terraform's state has their sums alone.
resource "terraform_data" "keys" {
  for_each = var.keys == null ? {} : var.hosts

  input = terraform_data.host[each.key].output
  triggers_replace = [for file in fileset(local.keys[each.key], "**") : [
    file, filesha256("${local.keys[each.key]}/${file}")
  ]]
  depends_on = [terraform_data.provisioned]

  lifecycle {
    precondition {
      condition     = fileexists("${local.keys[each.key]}/roles")
      error_message = "keys: ${local.keys[each.key]} is missing: run dionysia cluster init with this host."
    }
  }

  connection {
    type        = "ssh"
    host        = self.input.address
    port        = self.input.port
    user        = self.input.user
    host_key    = self.input.host_key
    private_key = file(self.input.private_key)
    timeout     = "2m"
  }

  provisioner "remote-exec" {
    inline = ["rm -rf .dionysia-keys && mkdir -m 700 .dionysia-keys"]
  }

  provisioner "file" {
    source      = "${local.keys[each.key]}/"
    destination = ".dionysia-keys"
  }

  provisioner "remote-exec" {
    inline = [
      "set -e",
      "trap 'rm -rf .dionysia-keys' EXIT",
      "${self.input.sudo}/opt/dionysia/tools/provision/provision.sh ${local.options[each.key]} --keys .dionysia-keys keys units",
    ]
  }
}
