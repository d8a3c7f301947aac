# A router reads services and nodes. It asks by DNS, with its agent's token; this is for a router that is
# given a token of its own, by hand or by a consul block.
service_prefix "" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
