variable "hosts" {
  description = "The machines by name. address and port: of SSH. bind: the address in the cluster, where it is another. host_key: the machine's public SSH key, as in known_hosts without the name; empty trusts whoever answers."
  type = map(object({
    address  = string
    port     = optional(number, 22)
    user     = optional(string, "root")
    host_key = optional(string, "")
    bind     = optional(string)
    roles    = list(string)
  }))

  validation {
    condition = alltrue([
      for host in values(var.hosts) : length(host.roles) > 0 && length(setsubtract(
        host.roles, ["server", "redis", "api", "ingest", "worker", "router", "edge"]
      )) == 0
    ])
    error_message = "hosts: roles must be some of server, redis, api, ingest, worker, router and edge."
  }
}

variable "private_key_file" {
  description = "SSH key that all machines accept; a file, so that the key isn't in Terraform's state."
  type        = string
}

variable "bundle" {
  description = "The archive that tools/provision/bundle.sh made."
  type        = string
}

variable "keys" {
  description = "The folder that dionysia cluster init made, with a host for each of hosts; without it, keys are brought there in another way."
  type        = string
  default     = null
}

variable "from" {
  description = "release: the machines fetch Consul and Nomad; folder: the bundle brings them."
  type        = string
  default     = "release"

  validation {
    condition     = contains(["release", "folder"], var.from)
    error_message = "from must be release or folder."
  }
}

variable "dns" {
  description = "What resolves .consul on the machines: systemd-resolved, dnsmasq, none, or auto for what is there."
  type        = string
  default     = "systemd-resolved"
}

variable "nomad" {
  description = "Whether Nomad runs the roles; without it systemd does."
  type        = bool
  default     = true
}

variable "restart" {
  description = "Whether programs that have changed are restarted at once. Otherwise drain and restart them one by one (docs/operations/upgrade.md)."
  type        = bool
  default     = false
}

variable "purge" {
  description = "Whether destroy removes the data of Consul, Nomad, Redis and Dionysia too."
  type        = bool
  default     = false
}
