# The Nomad client of a host with the role ingest, beside nomad-client.
service "ingest" {
  policy = "write"
}
