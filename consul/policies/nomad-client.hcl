# A Nomad client. It registers its tasks' services by the tasks' identities, but takes them out by this token:
# without leave to write them, what has stopped stays in Consul, and passes where the next one has its port.
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
service "api" {
  policy = "write"
}
service "edge" {
  policy = "write"
}
service "ingest" {
  policy = "write"
}
service "redis-live" {
  policy = "write"
}
service "redis-state" {
  policy = "write"
}
service "router" {
  policy = "write"
}
service "worker" {
  policy = "write"
}
