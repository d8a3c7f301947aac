# A Nomad client. It registers its tasks' services by the tasks' identities, but takes them out by its own token:
# without leave to write them, what has stopped stays in Consul, and passes where the next one has its port.
# Which it may write depends on its host's roles: a policy nomad-client-ROLE for each.
agent_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
service_prefix "" {
  policy = "read"
}
service "nomad-client" {
  policy = "write"
}
