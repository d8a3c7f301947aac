# A Nomad server of Dionysia. What differs from host to host and from cluster to cluster (name, address, data_dir,
# bootstrap_expect, keys, certificates) comes from a second file, which `dionysia cluster init` makes:
# nomad agent -config=server.hcl -config=/etc/nomad.d/host.hcl

server {
  enabled = true

  # A client that says nothing is down after 2 to 3 s, not 24 s. Each client beats once a second at least, so
  # this is for some hundred nodes; on more of them raise both.
  heartbeat_grace   = "1s"
  min_heartbeat_ttl = "1s"

  # Finished allocations and their events are kept for a day.
  job_gc_threshold  = "24h"
  eval_gc_threshold = "24h"

  default_scheduler_config {
    scheduler_algorithm = "spread"

    preemption_config {
      system_scheduler_enabled  = true
      service_scheduler_enabled = true
    }
  }
}

acl {
  enabled = true
}

# Tasks and services reach Consul by their workload identity: no Consul token in a job file, none in Nomad's
# own configuration but the agent's.
consul {
  address             = "127.0.0.1:8500"
  service_auth_method = "nomad-workloads"
  task_auth_method    = "nomad-workloads"

  service_identity {
    aud = ["consul.io"]
    ttl = "1h"
  }

  task_identity {
    aud = ["consul.io"]
    ttl = "1h"
  }
}

# Servers and clients talk over TLS and show each other certificates; the certificates' paths are the host's.
tls {
  rpc                    = true
  verify_server_hostname = true
}

telemetry {
  prometheus_metrics         = true
  publish_allocation_metrics = true
  publish_node_metrics       = true
  disable_hostname           = true
}

leave_on_interrupt   = false
leave_on_terminate   = false
disable_update_check = true
