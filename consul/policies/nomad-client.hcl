# A Nomad client. The services of its tasks are registered by the tasks' identities, not by this token.
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
