# A Consul server of Dionysia. What differs from host to host and from cluster to cluster (name, address, data_dir,
# bootstrap_expect, gossip key, certificates, tokens) comes from a second file, which `dionysia cluster init` makes:
# consul agent -config-file=server.hcl -config-file=/etc/consul.d/host.hcl

server = true

# HTTP and DNS are for this host alone; others ask their own agent.
client_addr = "127.0.0.1"

ui_config {
  enabled = true
}

# Raft on machines of our own, near each other: the default is for slow cloud instances.
performance {
  raft_multiplier = 1
}

# A host that dies is out of DNS after 1 s, not 6 s. All agents of a datacenter must have the same values.
gossip_lan {
  gossip_interval = "100ms"
  probe_interval  = "200ms"
  probe_timeout   = "100ms"
  suspicion_mult  = 3
}

dns_config {
  only_passing    = true # the default answers with what is critical, too
  enable_truncate = true # without it a long answer is cut with no sign of that
  allow_stale     = true
  max_stale       = "30s"

  service_ttl = {
    "*"      = "2s"
    "origin" = "1s" # how soon routers follow a moved origin
  }
}

acl {
  enabled                  = true
  default_policy           = "deny"
  down_policy              = "extend-cache"
  enable_token_persistence = true
}

# Between agents nothing goes unencrypted: RPC by certificates of our own authority, gossip by the host
# file's `encrypt`.
tls {
  internal_rpc {
    verify_incoming        = true
    verify_outgoing        = true
    verify_server_hostname = true
  }
}

connect {
  enabled = false # Dionysia uses no mesh
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
