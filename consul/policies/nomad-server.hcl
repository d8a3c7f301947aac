# Nomad's servers find each other and say that they are there.
agent_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
service_prefix "" {
  policy = "read"
}
service "nomad" {
  policy = "write"
}
