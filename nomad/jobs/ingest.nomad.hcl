# mediamtx and its ingest agent, one pair on each node whose metadata says dionysia = "…,ingest,…".
#
# The agent registers the service mediamtx by itself, which passes while agent and mediamtx can do their
# work; Nomad registers the service ingest, which passes while RTMP can be connected to.
#
# Secrets: nomad/jobs/ingest holds secret.

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

variable "mediamtx" {
  description = "Path of mediamtx 1.15."
  type        = string
  default     = "/usr/local/bin/mediamtx"
}

variable "log_level" {
  description = "trace, debug, info, warn or error."
  type        = string
  default     = "info"
}

variable "api" {
  description = "Base URL of the management API."
  type        = string
  default     = "http://api.service.consul:8080"
}

variable "consul" {
  description = "The node's Consul agent, host:port."
  type        = string
  default     = "127.0.0.1:8500"
}

variable "bind" {
  description = "Address of the node to listen at; empty is all."
  type        = string
  default     = ""
}

variable "rtmp_port" {
  description = "TCP port for RTMP."
  type        = number
  default     = 1935
}

variable "rtsp_port" {
  description = "TCP port for RTSP."
  type        = number
  default     = 8554
}

variable "srt_port" {
  description = "UDP port for SRT."
  type        = number
  default     = 8890
}

variable "whip_port" {
  description = "TCP port for WHIP."
  type        = number
  default     = 8889
}

variable "ice_port" {
  description = "UDP port for WebRTC's media."
  type        = number
  default     = 8189
}

job "ingest" {
  datacenters = var.datacenters
  type        = "system"
  priority    = 80

  constraint {
    attribute = "${meta.dionysia}"
    operator  = "set_contains"
    value     = "ingest"
  }

  # One node at a time: publishers reconnect to another one meanwhile.
  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "5s"
    healthy_deadline = "2m"
    stagger          = "30s"
  }

  group "ingest" {
    # A node that is cut off from Nomad's servers keeps its publishers.
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
      port "rtmp" {
        static = var.rtmp_port
      }
      port "rtsp" {
        static = var.rtsp_port
      }
      port "srt" {
        static = var.srt_port
      }
      port "whip" {
        static = var.whip_port
      }
      port "ice" {
        static = var.ice_port
      }
      port "agent" {}   # on loopback
      port "control" {} # on loopback
    }

    service {
      name     = "ingest"
      port     = "rtmp"
      provider = "consul"
      tags     = ["rtmp", "rtsp", "srt", "whip", "${node.unique.name}"]

      meta {
        role  = "ingest"
        rtsp  = "${NOMAD_ADDR_rtsp}"
        srt   = "${NOMAD_ADDR_srt}"
        whip  = "${NOMAD_ADDR_whip}"
        alloc = "${NOMAD_ALLOC_ID}"
      }

      # No check_restart: a restart would cut the publishers off.
      check {
        name     = "RTMP takes connections"
        type     = "tcp"
        interval = "2s"
        timeout  = "1s"
      }
    }

    # mediamtx.yml and its hooks' environment hold a credential: they lie in the folder that the two tasks
    # share, mode 0600, and mediamtx starts when they are there.
    task "config" {
      driver = "raw_exec"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      config {
        command = var.dionysia
        args    = ["ingest", "config"]
      }

      env {
        DIONYSIA_MEDIAMTX_CONFIG_OUT = "${NOMAD_ALLOC_DIR}/data/mediamtx.yml"
        DIONYSIA_MEDIAMTX_HOOK_ENV   = "${NOMAD_ALLOC_DIR}/data/mediamtx.env"
        DIONYSIA_MEDIAMTX_RTMP       = "${var.bind}:${NOMAD_PORT_rtmp}"
        DIONYSIA_MEDIAMTX_RTSP       = "${var.bind}:${NOMAD_PORT_rtsp}"
        DIONYSIA_MEDIAMTX_SRT        = "${var.bind}:${NOMAD_PORT_srt}"
        DIONYSIA_MEDIAMTX_WHIP       = "${var.bind}:${NOMAD_PORT_whip}"
        DIONYSIA_MEDIAMTX_ICE        = "${var.bind}:${NOMAD_PORT_ice}"
        DIONYSIA_MEDIAMTX_ICE_HOSTS  = "${attr.unique.network.ip-address}"
        DIONYSIA_MEDIAMTX_API_LISTEN = "127.0.0.1:${NOMAD_PORT_control}"
        DIONYSIA_INGEST_URL          = "http://127.0.0.1:${NOMAD_PORT_agent}"
        DIONYSIA_SECRET_FILE         = "${NOMAD_SECRETS_DIR}/cluster.secret"
      }

      template {
        destination = "secrets/cluster.secret"
        perms       = "0600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/ingest\" }}{{ .secret }}{{ end }}"
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }

    task "mediamtx" {
      driver         = "raw_exec"
      shutdown_delay = "1s"
      kill_signal    = "SIGTERM"
      kill_timeout   = "15s"

      config {
        command = "/bin/sh"
        args    = ["-c", "set -a; . \"$NOMAD_ALLOC_DIR/data/mediamtx.env\"; exec \"$MEDIAMTX\" \"$NOMAD_ALLOC_DIR/data/mediamtx.yml\""]
      }

      env {
        MEDIAMTX = var.mediamtx
      }

      resources {
        cpu    = 300
        memory = 256
      }
    }

    task "agent" {
      driver       = "raw_exec"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        command = var.dionysia
        args    = ["ingest", "run"]
      }

      # A Consul token that may write the service mediamtx and nothing else.
      consul {}

      env {
        DIONYSIA_LOG_LEVEL     = var.log_level
        DIONYSIA_INGEST_LISTEN = "127.0.0.1:${NOMAD_PORT_agent}"
        DIONYSIA_INGEST_NODE   = "${node.unique.name}"
        DIONYSIA_INGEST_RTMP   = "${attr.unique.network.ip-address}:${NOMAD_PORT_rtmp}"
        DIONYSIA_INGEST_RTSP   = "${attr.unique.network.ip-address}:${NOMAD_PORT_rtsp}"
        DIONYSIA_MEDIAMTX_API  = "http://127.0.0.1:${NOMAD_PORT_control}"
        DIONYSIA_API           = var.api
        DIONYSIA_CONSUL_ADDR   = var.consul
        DIONYSIA_SECRET_FILE   = "${NOMAD_SECRETS_DIR}/cluster.secret"
      }

      template {
        destination = "secrets/cluster.secret"
        perms       = "0600"
        change_mode = "noop"
        data        = "{{ with nomadVar \"nomad/jobs/ingest\" }}{{ .secret }}{{ end }}"
      }

      resources {
        cpu    = 100
        memory = 128
      }
    }
  }
}
