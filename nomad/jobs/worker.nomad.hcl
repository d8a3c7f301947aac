# The workers: one on every node whose metadata says dionysia = "…,worker,…". A worker finds the CPU and
# the NVIDIA cards of its node by itself, so the same file serves both kinds of node.
#
# It registers its origin in Consul by itself (service origin, tagged with the worker's id); Nomad registers
# the service worker beside it, whose check says why a worker can't work.
#
# Secrets: nomad/jobs/worker holds secret and redis_password.

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

variable "consul" {
  description = "The node's Consul agent, host:port."
  type        = string
  default     = "127.0.0.1:8500"
}

variable "driver" {
  description = "raw_exec, or exec for a chroot and namespaces. With exec the node must offer the host volume \"dionysia\"."
  type        = string
  default     = "raw_exec"
}

variable "gpus" {
  description = "NVIDIA cards to claim from Nomad's device plugin; then only nodes that have so many are used. Leave it 0 with raw_exec, which sees all cards anyway."
  type        = number
  default     = 0
}

variable "bind" {
  description = "Address of the node to listen at; empty is all."
  type        = string
  default     = ""
}

variable "port" {
  description = "TCP port of the origin."
  type        = number
  default     = 8091
}

variable "data_dir" {
  description = "Folder for runs and calibration results; GPAC's user must be able to pass it. Runs must outlast the process: a worker that starts again serves them."
  type        = string
  default     = "/var/lib/dionysia"
}

variable "user" {
  description = "User that the worker runs as; empty is the Nomad agent's. GPAC itself runs as gpac_user when this is root."
  type        = string
  default     = "root"
}

variable "gpac" {
  description = "GPAC's program."
  type        = string
  default     = "gpac"
}

variable "gpac_user" {
  description = "User that GPAC runs as."
  type        = string
  default     = "nobody"
}

variable "cpu_capacity" {
  description = "The CPU's budget in encoded pixels per second; 0 measures it."
  type        = number
  default     = 0
}

variable "cpu_mhz" {
  description = "CPU reserved for the worker and its GPACs, in MHz. raw_exec and exec may use more when it is free."
  type        = number
  default     = 1000
}

variable "memory_mib" {
  description = "Memory reserved for the worker and its GPACs, in MiB."
  type        = number
  default     = 1024
}

variable "drain_timeout" {
  description = "How long a worker that is stopped waits for other workers to take its streams."
  type        = string
  default     = "60s"
}

variable "linger" {
  description = "How long, within drain_timeout, it then serves the older segments of what has moved."
  type        = string
  default     = "30s"
}

variable "stagger" {
  description = "Time from one node's update to the next one's. Longer than a worker takes to stop (a few seconds and linger) and to be ready again, or the next one's streams have nowhere to go."
  type        = string
  default     = "90s"
}

variable "kill_timeout" {
  description = "How long it may take to end: drain_timeout and 5 s, 25 s at least. The client's max_kill_timeout must be as long."
  type        = string
  default     = "70s"
}

job "worker" {
  datacenters = var.datacenters
  type        = "system"
  priority    = 70

  constraint {
    attribute = "${meta.dionysia}"
    operator  = "set_contains"
    value     = "worker"
  }

  # One worker after the other. Of a system job's update Nomad 1.10 heeds these two alone: it does not look
  # whether the new one is healthy.
  update {
    max_parallel = 1
    stagger      = var.stagger
  }

  group "worker" {
    # A worker that is cut off from Nomad's servers goes on: Dionysia moves its streams, not Nomad.
    disconnect {
      lost_after = "12h"
      replace    = false
      reconcile  = "keep_original"
    }

    restart {
      attempts = 30
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    network {
      port "origin" {
        static = var.port
      }
    }

    dynamic "volume" {
      for_each = var.driver == "exec" ? ["dionysia"] : []
      labels   = ["dionysia"]

      content {
        type   = "host"
        source = volume.value
      }
    }

    service {
      name     = "worker"
      port     = "origin"
      provider = "consul"
      tags     = ["origin", "${node.unique.name}"]

      meta {
        role   = "worker"
        driver = var.driver
        alloc  = "${NOMAD_ALLOC_ID}"
      }

      # No check_restart: a restart would end the streams that are live.
      check {
        name     = "ready: GPAC runs, Redis answers"
        type     = "http"
        path     = "/readyz"
        interval = "1s"
        timeout  = "1s"
      }
    }

    task "worker" {
      driver         = var.driver
      user           = var.user
      shutdown_delay = "2s"
      kill_signal    = "SIGTERM"
      kill_timeout   = var.kill_timeout

      config {
        command = var.dionysia
        args    = ["worker", "run"]
      }

      # A Consul token that may write the service origin and nothing else; the worker finds it in CONSUL_HTTP_TOKEN.
      consul {}

      env {
        DIONYSIA_LOG_LEVEL            = var.log_level
        DIONYSIA_WORKER_ID            = "${node.unique.name}"
        DIONYSIA_WORKER_LISTEN        = "${var.bind}:${NOMAD_PORT_origin}"
        DIONYSIA_WORKER_ADVERTISE     = "${attr.unique.network.ip-address}:${NOMAD_PORT_origin}"
        DIONYSIA_WORKER_RUN_DIR       = "${var.data_dir}/runs"
        DIONYSIA_WORKER_CACHE_DIR     = "${var.data_dir}/cache"
        DIONYSIA_GPAC                 = var.gpac
        DIONYSIA_GPAC_USER            = var.gpac_user
        DIONYSIA_CPU_CAPACITY         = var.cpu_capacity
        DIONYSIA_WORKER_DRAIN_TIMEOUT = var.drain_timeout
        DIONYSIA_WORKER_LINGER        = var.linger
        DIONYSIA_NOMAD_NODE           = "${node.unique.id}"
        DIONYSIA_CONSUL_ADDR          = var.consul
        DIONYSIA_REDIS_STATE          = var.redis_state
        DIONYSIA_REDIS_LIVE           = var.redis_live
        DIONYSIA_SECRET_FILE          = "${NOMAD_SECRETS_DIR}/cluster.secret"
        DIONYSIA_REDIS_PASSWORD_FILE  = "${NOMAD_SECRETS_DIR}/redis.password"
      }

      template {
        destination = "secrets/cluster.secret"
        perms       = "0600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/worker\" }}{{ .secret }}{{ end }}"
      }

      template {
        destination = "secrets/redis.password"
        perms       = "0600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/worker\" }}{{ .redis_password }}{{ end }}"
      }

      dynamic "volume_mount" {
        for_each = var.driver == "exec" ? ["dionysia"] : []

        content {
          volume      = volume_mount.value
          destination = var.data_dir
        }
      }

      resources {
        cpu    = var.cpu_mhz
        memory = var.memory_mib

        dynamic "device" {
          for_each = var.gpus > 0 ? [var.gpus] : []
          labels   = ["nvidia/gpu"]

          content {
            count = device.value
          }
        }
      }
    }
  }
}
