# The Nomad client of a host with the role edge, beside nomad-client.
service "edge" {
  policy = "write"
}
