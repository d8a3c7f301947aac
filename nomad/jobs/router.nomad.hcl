# The routers, which viewers and CDNs ask.
#
# Secrets: nomad/jobs/router holds secret and redis_password.

variable "datacenters" {
  description = "Nomad datacenters to run in; * is all."
  type        = list(string)
  default     = ["*"]
}

variable "dionysia" {
  description = "Path of the program on every node."
  type        = string
  default     = "/usr/local/bin/dionysia"
}

variable "log_level" {
  description = "trace, debug, info, warn or error."
  type        = string
  default     = "info"
}

variable "redis_state" {
  description = "Redis for what must last, redis://HOST:PORT/DB. The name is resolved at each connection, so Redis may move."
  type        = string
  default     = "redis://redis-state.service.consul:6379/0"
}

variable "redis_live" {
  description = "Redis for heartbeats, tasks and notifications."
  type        = string
  default     = "redis://redis-live.service.consul:6380/0"
}

variable "count" {
  description = "How many run, each on a node of its own."
  type        = number
  default     = 2
}

variable "min_count" {
  description = "The fewest that the api's scaling leaves (docs/operations/scaling.md); never more than count. With one router alone nothing serves while it is replaced."
  type        = number
  default     = 2
}

variable "max_count" {
  description = "The most that it asks for; never less than count."
  type        = number
  default     = 8
}

variable "port" {
  description = "TCP port for viewers; 0 lets Nomad choose one, so that old and new share a node during an update: the new ones serve before the old ones go. With a port of their own they are replaced one by one. The edge learns the port from Consul."
  type        = number
  default     = 0
}

variable "mode" {
  description = "proxy, or redirect to the worker (307)."
  type        = string
  default     = "proxy"
}

variable "consul_dns" {
  description = "DNS of the node's Consul agent, host:port."
  type        = string
  default     = "127.0.0.1:8600"
}

variable "cache_mib" {
  description = "Memory for segments, in MiB. The task is given twice as much and 128 MiB."
  type        = number
  default     = 256
}

variable "web_dir" {
  description = "Folder with hls.min.js for the watch page; empty leaves the player out."
  type        = string
  default     = ""
}

variable "bind" {
  description = "Address of the node to listen at; empty is all."
  type        = string
  default     = ""
}

job "router" {
  datacenters = var.datacenters
  type        = "service"
  priority    = 80

  constraint {
    attribute = "${meta.dionysia}"
    operator  = "set_contains"
    value     = "router"
  }

  group "router" {
    count = var.count

    # For the api's --scale-jobs and for "nomad job scale": Nomad itself refuses a count that is outside.
    scaling {
      enabled = true
      min     = min(var.min_count, var.count)
      max     = max(var.max_count, var.count)
    }

    # Old and new may share a node, two of the same version do so only when there are too few nodes.
    spread {
      attribute = "${node.unique.id}"
    }

    # A node that is cut off from Nomad's servers goes on serving its viewers, and gets a substitute.
    disconnect {
      lost_after = "1h"
      replace    = true
      reconcile  = "best_score"
    }

    update {
      max_parallel      = 1
      canary            = var.port == 0 ? var.count : 0
      auto_promote      = var.port == 0
      auto_revert       = true
      health_check      = "checks"
      min_healthy_time  = "3s"
      healthy_deadline  = "2m"
      progress_deadline = "5m"
    }

    restart {
      attempts = 10
      interval = "2m"
      delay    = "1s"
      mode     = "delay"
    }

    reschedule {
      delay          = "5s"
      delay_function = "exponential"
      max_delay      = "1m"
      unlimited      = true
    }

    network {
      port "http" {
        static = var.port
      }
      port "admin" {}
    }

    service {
      name        = "router"
      port        = "http"
      provider    = "consul"
      tags        = ["http", var.mode]
      canary_tags = ["http", var.mode, "canary"]

      meta {
        role  = "router"
        admin = "${NOMAD_ADDR_admin}"
        alloc = "${NOMAD_ALLOC_ID}"
      }

      check {
        name     = "ready"
        type     = "http"
        port     = "admin"
        path     = "/readyz"
        interval = "1s"
        timeout  = "1s"
      }
    }

    task "router" {
      driver         = "raw_exec"
      shutdown_delay = "2s"
      kill_signal    = "SIGTERM"
      kill_timeout   = "30s"

      config {
        command = var.dionysia
        args    = ["router"]
      }

      env {
        DIONYSIA_LOG_LEVEL           = var.log_level
        DIONYSIA_ROUTER_LISTEN       = "${var.bind}:${NOMAD_PORT_http}"
        DIONYSIA_ROUTER_ADMIN_LISTEN = "${var.bind}:${NOMAD_PORT_admin}"
        DIONYSIA_ROUTER_MODE         = var.mode
        DIONYSIA_ROUTER_CACHE_MIB    = var.cache_mib
        DIONYSIA_CONSUL_ADDR         = "off" # Nomad registers it
        DIONYSIA_CONSUL_DNS          = var.consul_dns
        DIONYSIA_REDIS_STATE         = var.redis_state
        DIONYSIA_REDIS_LIVE          = var.redis_live
        DIONYSIA_WEB_DIR             = var.web_dir
        DIONYSIA_SECRET_FILE         = "${NOMAD_SECRETS_DIR}/cluster.secret"
        DIONYSIA_REDIS_PASSWORD_FILE = "${NOMAD_SECRETS_DIR}/redis.password"
      }

      template {
        destination = "secrets/cluster.secret"
        perms       = "0600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/router\" }}{{ .secret }}{{ end }}"
      }

      template {
        destination = "secrets/redis.password"
        perms       = "0600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/router\" }}{{ .redis_password }}{{ end }}"
      }

      resources {
        cpu    = 300
        memory = var.cache_mib * 2 + 128
      }
    }
  }
}
