# A Consul client of Dionysia, one on every host that has no server. What differs from host to host comes from a
# second file, which `dionysia cluster init` makes:
# consul agent -config-file=client.hcl -config-file=/etc/consul.d/host.hcl

server      = false
client_addr = "127.0.0.1"

# As on the servers: see server.hcl.
gossip_lan {
  gossip_interval = "100ms"
  probe_interval  = "200ms"
  probe_timeout   = "100ms"
  suspicion_mult  = 3
}

dns_config {
  only_passing    = true
  enable_truncate = true
  allow_stale     = true
  max_stale       = "30s"

  service_ttl = {
    "*"      = "2s"
    "origin" = "1s"
  }
}

acl {
  enabled                  = true
  default_policy           = "deny"
  down_policy              = "extend-cache" # tokens stay valid while the servers are away
  enable_token_persistence = true
}

# Certificates are the host file's. A client's does not depend on the servers, and so neither does its start.
tls {
  internal_rpc {
    verify_outgoing        = true
    verify_server_hostname = true
  }
}

ports {
  grpc     = -1
  grpc_tls = -1
}

telemetry {
  prometheus_retention_time = "60s"
  disable_hostname          = true
}

disable_update_check = true
leave_on_terminate   = false
