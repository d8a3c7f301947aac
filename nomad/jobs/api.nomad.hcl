# The management API with its controller. Any number may run; one leads.
#
# Secrets: nomad/jobs/api holds secret, admin_token and redis_password.
#
# It follows Nomad's nodes through the task's own socket and identity. What that identity may do is the policy
# nomad/policies/api.hcl, which `dionysia cluster bootstrap` attaches to this job.

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
  default     = 1
}

variable "min_count" {
  description = "The fewest that the api's scaling leaves (docs/operations/scaling.md); never more than count."
  type        = number
  default     = 1
}

variable "max_count" {
  description = "The most that it asks for; never less than count."
  type        = number
  default     = 4
}

variable "scale_jobs" {
  description = "Jobs that the leading api gives more or fewer instances by their load, such as api,router; empty for none. It needs follow_nomad."
  type        = string
  default     = ""
}

variable "port" {
  description = "TCP port. It is the same on each node, so that api.service.consul:PORT is an address; an update needs one node more than count that has it free."
  type        = number
  default     = 8080
}

variable "follow_nomad" {
  description = "Whether workers on nodes that drain or are ineligible are drained, and those on nodes that are down probed early."
  type        = bool
  default     = true
}

variable "nomad" {
  description = "URL of Nomad's HTTP API, to follow the nodes; empty is the task's own socket."
  type        = string
  default     = ""
}

variable "user" {
  description = "User that the api runs as; empty is the Nomad agent's."
  type        = string
  default     = "root"
}

variable "bind" {
  description = "Address of the node to listen at; empty is all."
  type        = string
  default     = ""
}

variable "spare_node" {
  description = "A node more than count has the port free: a new one serves before an old one goes. Without one, the old one ends first."
  type        = bool
  default     = true
}

job "api" {
  datacenters = var.datacenters
  type        = "service"
  priority    = 80

  constraint {
    attribute = "${meta.dionysia}"
    operator  = "set_contains"
    value     = "api"
  }

  group "api" {
    count = var.count

    # For the api's --scale-jobs and for "nomad job scale": Nomad itself refuses a count that is outside.
    scaling {
      enabled = true
      min     = min(var.min_count, var.count)
      max     = max(var.max_count, var.count)
    }

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    # One new one serves before an old one goes, where there is room for both; the rest follow one by one.
    update {
      max_parallel      = 1
      canary            = var.spare_node ? 1 : 0
      auto_promote      = var.spare_node
      auto_revert       = true
      health_check      = "checks"
      min_healthy_time  = "3s"
      healthy_deadline  = "2m"
      progress_deadline = "5m"
    }

    restart {
      attempts = 10
      interval = "2m"
      delay    = "2s"
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
    }

    service {
      name     = "api"
      port     = "http"
      provider = "consul"
      tags     = ["http", "v1"]

      canary_tags = ["canary"]

      meta {
        role  = "api"
        alloc = "${NOMAD_ALLOC_ID}"
      }

      check {
        name     = "ready: Redis answers"
        type     = "http"
        path     = "/readyz"
        interval = "1s"
        timeout  = "1s"
      }
    }

    task "api" {
      driver         = "raw_exec"
      user           = var.user # without a name here Nomad's token is a file for all who can enter the folder
      shutdown_delay = "2s"     # out of Consul first, then the signal
      kill_signal    = "SIGTERM"
      kill_timeout   = "30s" # the role drains for up to 25 s

      config {
        command = var.dionysia
        args    = ["api"]
      }

      env {
        DIONYSIA_LOG_LEVEL           = var.log_level
        DIONYSIA_API_LISTEN          = "${var.bind}:${NOMAD_PORT_http}"
        DIONYSIA_CONSUL_ADDR         = "off" # Nomad registers it
        DIONYSIA_REDIS_STATE         = var.redis_state
        DIONYSIA_REDIS_LIVE          = var.redis_live
        DIONYSIA_SECRET_FILE         = "${NOMAD_SECRETS_DIR}/cluster.secret"
        DIONYSIA_ADMIN_TOKEN_FILE    = "${NOMAD_SECRETS_DIR}/admin.token"
        DIONYSIA_REDIS_PASSWORD_FILE = "${NOMAD_SECRETS_DIR}/redis.password"
        DIONYSIA_SCALE_JOBS          = var.scale_jobs
        DIONYSIA_NOMAD_ADDR          = var.follow_nomad ? (var.nomad == "" ? "unix://${NOMAD_SECRETS_DIR}/api.sock" : var.nomad) : "off"
        DIONYSIA_NOMAD_TOKEN_FILE    = "${NOMAD_SECRETS_DIR}/nomad_follow.jwt"
      }

      # Nomad renews the token in its file; the api reads it for each request.
      identity {
        name        = "follow"
        aud         = ["nomadproject.io"]
        file        = true
        ttl         = "1h"
        change_mode = "noop"
      }

      template {
        destination = "secrets/cluster.secret"
        perms       = "0600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/api\" }}{{ .secret }}{{ end }}"
      }

      template {
        destination = "secrets/admin.token"
        perms       = "0600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/api\" }}{{ .admin_token }}{{ end }}"
      }

      template {
        destination = "secrets/redis.password"
        perms       = "0600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/api\" }}{{ .redis_password }}{{ end }}"
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
