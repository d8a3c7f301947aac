# The Nomad client of a host with the role worker, beside nomad-client.
service "worker" {
  policy = "write"
}
