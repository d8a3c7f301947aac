variable "region" {
  type    = string
  default = "eu-central-1"
}

variable "zone" {
  description = "One zone for all: media between zones is billed, and gossip is tuned for machines near each other."
  type        = string
  default     = "eu-central-1a"
}

variable "cidr" {
  description = "The cluster's network, a /22 or larger."
  type        = string
  default     = "10.64.0.0/22"
}

variable "key_name" {
  description = "The operators' EC2 key pair."
  type        = string
}

variable "operators" {
  description = "Networks that may use SSH."
  type        = list(string)
  default     = []
}

variable "publishers" {
  description = "Networks that may publish."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "viewers" {
  description = "Networks that may ask the edges: the CDN's, or all."
  type        = list(string)
  default     = ["0.0.0.0/0"]
}

variable "servers" {
  description = "Servers of Consul and Nomad: 1, 3 or 5."
  type        = number
  default     = 3

  validation {
    condition     = contains([1, 3, 5], var.servers)
    error_message = "servers must be 1, 3 or 5."
  }
}

variable "server_type" {
  type    = string
  default = "m7i.large"
}

variable "cpu_workers" {
  type    = number
  default = 2
}

variable "cpu_worker_type" {
  type    = string
  default = "c7i.4xlarge"
}

variable "gpu_workers" {
  type    = number
  default = 1
}

variable "gpu_worker_type" {
  description = "A type whose card encodes: g4dn (T4), g5 (A10G), g6 (L4). The p types' cards have no NVENC."
  type        = string
  default     = "g6.2xlarge"

  validation {
    condition     = can(regex("^g(4dn|5|6|6e)\\.", var.gpu_worker_type))
    error_message = "gpu_worker_type must be of g4dn, g5, g6 or g6e: other types' cards can't encode."
  }
}

variable "ingests" {
  type    = number
  default = 1
}

variable "ingest_type" {
  type    = string
  default = "c7i.xlarge"
}

variable "edges" {
  type    = number
  default = 2
}

variable "edge_type" {
  type    = string
  default = "c6in.xlarge"
}

variable "disk_gib" {
  type    = number
  default = 50
}
