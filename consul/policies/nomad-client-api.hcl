# The Nomad client of a host with the role api, beside nomad-client.
service "api" {
  policy = "write"
}
