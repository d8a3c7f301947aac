# A Nomad client of Dionysia. What differs from host to host comes from a second file, which `dionysia cluster init`
# makes:
# nomad agent -config=client.hcl -config=/etc/nomad.d/host.hcl
#
# The host's file says what may run there, by names that the job files look for:
#
#   client {
#     meta {
#       dionysia = "worker,router" # any of redis, api, ingest, worker, router, edge
#     }
#   }

client {
  enabled = true

  # A worker's kill_timeout is capped by this. The default, 30 s, would cut a drain short.
  max_kill_timeout = "10m"

  # Allocations that have ended are kept for their logs; their disk is bounded.
  gc_interval      = "1m"
  gc_max_allocs    = 50
  max_dynamic_port = 32000
  min_dynamic_port = 20000

  options = {
    # The clouds' metadata services are asked for nothing: a bare-metal host waits for each in vain.
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}

plugin "raw_exec" {
  config {
    enabled = true
  }
}

acl {
  enabled = true
}

consul {
  address             = "127.0.0.1:8500"
  service_auth_method = "nomad-workloads"
  task_auth_method    = "nomad-workloads"
}

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

# Tasks outlive their agent: an agent that is restarted finds them again.
leave_on_interrupt   = false
leave_on_terminate   = false
disable_update_check = true
