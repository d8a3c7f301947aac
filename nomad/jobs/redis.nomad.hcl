# Redis in its two roles: state (what must last) and live (heartbeats, tasks, notifications).
#
# It runs on the node whose metadata says dionysia = "…,redis,…", keeps its data there, and never runs
# twice: that node has its ports once, a lost node's Redis is not started elsewhere without its data.
#
# Secrets: nomad/jobs/redis holds redis_password.

variable "datacenters" {
  description = "Nomad datacenters to run in; * is all."
  type        = list(string)
  default     = ["*"]
}

variable "redis_server" {
  description = "Path of Redis 7's redis-server."
  type        = string
  default     = "/usr/bin/redis-server"
}

variable "data_dir" {
  description = "Folder that holds both data sets; it stays when the job is stopped."
  type        = string
  default     = "/var/lib/dionysia/redis"
}

variable "user" {
  description = "User, and group, that Redis runs as; empty is the Nomad agent's."
  type        = string
  default     = "redis"
}

variable "bind" {
  description = "Address of the node to listen at; 0.0.0.0 is all."
  type        = string
  default     = "0.0.0.0"
}

variable "state_port" {
  description = "TCP port of the Redis with state."
  type        = number
  default     = 6379
}

variable "live_port" {
  description = "TCP port of the live Redis."
  type        = number
  default     = 6380
}

variable "memory_mib" {
  description = "Memory reserved for each of the two, in MiB. Both refuse writes (noeviction) rather than forget."
  type        = number
  default     = 256
}

locals {
  servers = {
    state = { port = var.state_port, fsync = "always" }
    live  = { port = var.live_port, fsync = "no" }
  }
}

job "redis" {
  datacenters = var.datacenters
  type        = "service"
  priority    = 90

  constraint {
    attribute = "${meta.dionysia}"
    operator  = "set_contains"
    value     = "redis"
  }

  group "redis" {
    count = 1

    # A node that is cut off keeps its Redis, and nobody starts a second one.
    disconnect {
      lost_after = "720h"
      replace    = false
      reconcile  = "keep_original"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    restart {
      attempts = 20
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    # Stop, then start: two processes must not share the files.
    update {
      max_parallel     = 1
      canary           = 0
      health_check     = "checks"
      min_healthy_time = "2s"
      healthy_deadline = "5m"
    }

    network {
      port "state" {
        static = var.state_port
      }
      port "live" {
        static = var.live_port
      }
    }

    dynamic "task" {
      for_each = local.servers
      labels   = ["${task.key}"]

      content {
        driver       = "raw_exec"
        kill_signal  = "SIGTERM"
        kill_timeout = "30s"

        # The configuration, with the password, is the agent's user's alone: Redis is given it already open, as its input.
        config {
          command = "/bin/sh"
          args = ["-ec", <<-EOT
            exec <"$NOMAD_SECRETS_DIR/redis.conf"
            if [ -z "$REDIS_USER" ]; then
              install -d -m 0700 "$REDIS_DIR"
              exec "$REDIS_SERVER" -
            fi
            install -d -o "$REDIS_USER" -g "$REDIS_USER" -m 0700 "$REDIS_DIR"
            exec setpriv --reuid="$REDIS_USER" --regid="$REDIS_USER" --init-groups "$REDIS_SERVER" -
          EOT
          ]
        }

        env {
          REDIS_SERVER = var.redis_server
          REDIS_USER   = var.user
          REDIS_DIR    = "${var.data_dir}/${task.key}"
        }

        template {
          destination = "secrets/redis.conf"
          perms       = "0600"
          change_mode = "restart"
          data        = <<-EOT
            bind ${var.bind}
            port ${task.value.port}
            dir ${var.data_dir}/${task.key}
            {{ with nomadVar "nomad/jobs/redis" }}requirepass {{ .redis_password }}{{ end }}
            appendonly yes
            appendfsync ${task.value.fsync}
            save ""
            maxmemory-policy noeviction
            daemonize no
          EOT
        }

        service {
          name         = "redis-${task.key}"
          port         = task.key
          provider     = "consul"
          tags         = ["redis", task.key]
          address_mode = "host"

          meta {
            appendfsync = task.value.fsync
            alloc       = "${NOMAD_ALLOC_ID}"
          }

          # Redis answers nobody without the password; that it takes connections is what can be asked.
          check {
            name     = "takes connections"
            type     = "tcp"
            interval = "2s"
            timeout  = "1s"
          }
        }

        resources {
          cpu    = 200
          memory = var.memory_mib
        }
      }
    }
  }
}
