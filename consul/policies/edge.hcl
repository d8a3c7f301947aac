# An edge reads where the routers are.
service "router" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
