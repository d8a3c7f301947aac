# A Nomad client. The services of its tasks are registered by the tasks' identities, and taken out by this token.
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
service "redis-state" {
  policy = "write"
}
service "redis-live" {
  policy = "write"
}
service "api" {
  policy = "write"
}
service "ingest" {
  policy = "write"
}
service "worker" {
  policy = "write"
}
service "router" {
  policy = "write"
}
service "edge" {
  policy = "write"
}
