# The edge: nginx as a CDN node in front of the routers. It keeps segments on disk, asks for each playlist
# once a second however many viewers there are, and serves what it has while the routers are away.
#
# It needs no secret. It learns the routers from Consul, and reloads when they change.

variable "datacenters" {
  description = "Nomad datacenters to run in; * is all."
  type        = list(string)
  default     = ["*"]
}

variable "role" {
  description = "Run only on nodes whose metadata dionysia names this: provision.sh installs nginx there; empty is any node, but a node's Nomad takes an edge out of Consul only with the role edge."
  type        = string
  default     = "edge"
}

variable "count" {
  description = "How many run, each on a node of its own."
  type        = number
  default     = 1
}

variable "nginx" {
  description = "nginx's program."
  type        = string
  default     = "/usr/sbin/nginx"
}

variable "nginx_user" {
  description = "User and group of nginx's workers."
  type        = string
  default     = "nobody nogroup"
}

variable "port" {
  description = "TCP port for viewers."
  type        = number
  default     = 80
}

variable "bind" {
  description = "Address of the node to listen at; * is all."
  type        = string
  default     = "*"
}

variable "cache_dir" {
  description = "Folder for segments; a fast disk or a tmpfs."
  type        = string
  default     = "/var/cache/dionysia-edge"
}

variable "cache_mib" {
  description = "Most that the cache keeps, in MiB."
  type        = number
  default     = 10240
}

job "edge" {
  datacenters = var.datacenters
  type        = "service"
  priority    = 60

  dynamic "constraint" {
    for_each = var.role == "" ? [] : [var.role]

    content {
      attribute = "${meta.dionysia}"
      operator  = "set_contains"
      value     = constraint.value
    }
  }

  group "edge" {
    count = var.count

    constraint {
      operator = "distinct_hosts"
      value    = "true"
    }

    # A node that is cut off from Nomad's servers goes on serving its viewers.
    disconnect {
      lost_after = "12h"
      replace    = false
      reconcile  = "keep_original"
    }

    update {
      max_parallel     = 1
      health_check     = "checks"
      min_healthy_time = "3s"
      healthy_deadline = "2m"
      auto_revert      = true
    }

    restart {
      attempts = 30
      interval = "5m"
      delay    = "1s"
      mode     = "delay"
    }

    network {
      port "http" {
        static = var.port
      }
    }

    service {
      name     = "edge"
      port     = "http"
      provider = "consul"
      tags     = ["http", "cdn"]

      meta {
        role  = "edge"
        alloc = "${NOMAD_ALLOC_ID}"
      }

      check {
        name     = "nginx answers"
        type     = "http"
        path     = "/edge-health"
        interval = "1s"
        timeout  = "1s"
      }
    }

    task "nginx" {
      driver         = "raw_exec"
      shutdown_delay = "2s"
      kill_signal    = "SIGQUIT" # nginx finishes what it is sending
      kill_timeout   = "20s"

      config {
        command = "/bin/sh"
        args    = ["-ec", "mkdir -p \"$CACHE_DIR\"; exec \"$NGINX_PROGRAM\" -p \"$CACHE_DIR\" -e stderr -c \"$NOMAD_TASK_DIR/nginx.conf\""]
      }

      env {
        NGINX_PROGRAM = var.nginx
        CACHE_DIR     = var.cache_dir
      }

      # A Consul token that may read the service router.
      consul {}

      template {
        destination   = "local/nginx.conf"
        perms         = "0644"
        change_mode   = "signal"
        change_signal = "SIGHUP"
        splay         = "0s" # at once: a router that stops is there for 2 s more, and the default waits up to 5 s

        # A short wait joins changes that come together.
        wait {
          min = "200ms"
          max = "2s"
        }

        data = <<-EOT
          daemon off;
          user ${var.nginx_user};
          worker_processes auto;
          pid {{ env "NOMAD_TASK_DIR" }}/nginx.pid;
          error_log stderr warn;
          events { worker_connections 4096; }
          http {
            access_log off;
            tcp_nopush on;
            keepalive_timeout 60s;
            client_body_temp_path ${var.cache_dir}/body;
            proxy_temp_path ${var.cache_dir}/proxy;
            fastcgi_temp_path ${var.cache_dir}/fastcgi;
            uwsgi_temp_path ${var.cache_dir}/uwsgi;
            scgi_temp_path ${var.cache_dir}/scgi;
            proxy_cache_path ${var.cache_dir}/live levels=1:2 keys_zone=live:32m inactive=10m
                             max_size=${var.cache_mib}m use_temp_path=off;

            map $uri $stream {
              ~^/[a-z]+/(?<id>[^/]+) $id;
              default                $uri;
            }

            upstream routers {
              zone routers 256k;
              # A stream has its router: another one may be half a second behind, and would have to fetch again
              # what the first one holds.
              hash $stream consistent;
              # Consul says which routers are well. nginx would count 503 as a failure, which routers answer for a
              # stream that is not live, and two of those would take a router from all other streams.
              {{- range service "router" }}
              server {{ .Address }}:{{ .Port }} max_fails=0;
              {{- else }}
              server 127.0.0.1:9 down; # no router passes its check: what is in the cache is served
              {{- end }}
              keepalive 64;
            }

            server {
              listen ${var.bind}:${var.port} reuseport;
              location = /edge-health { return 200 "ok\n"; }

              # What the router says of caching holds, also that a 404 is not kept; an old playlist is better than an
              # error. One router more is asked when the first can't answer (a POST never goes to a second one).
              proxy_http_version 1.1;
              proxy_set_header Connection "";
              proxy_set_header Host $host;
              proxy_connect_timeout 1s;
              proxy_read_timeout 10s;
              proxy_next_upstream error timeout http_502 http_503 http_504;
              proxy_next_upstream_tries 2;
              proxy_next_upstream_timeout 8s;
              proxy_cache live;
              # No answer depends on arguments, and whoever adds some must not fill the cache with copies. Once they
              # are set, nginx writes the path that it asks for from $uri: the key names exactly what was asked for.
              set $args "";
              proxy_cache_key $uri;
              proxy_cache_lock on;
              proxy_cache_lock_timeout 3s;
              proxy_cache_use_stale error timeout updating http_500 http_502 http_503 http_504;
              proxy_cache_background_update off;
              add_header X-Edge-Cache $upstream_cache_status always;
              add_header X-Edge-Router $upstream_addr always;

              # What one router listed another one may hold: after a worker's death, that one alone. So a segment is
              # asked of two more.
              location ~ ^/live/[^/]+/seg/ {
                proxy_pass http://routers;
                proxy_next_upstream error timeout http_502 http_503 http_504 http_404;
                proxy_next_upstream_tries 3;
              }
              location ~ ^/(live/|watch/|assets/|time$|$) {
                proxy_pass http://routers;
              }
              location / { return 404; }
            }
          }
        EOT
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
