# The Nomad client of a host with the role router, beside nomad-client.
service "router" {
  policy = "write"
}
