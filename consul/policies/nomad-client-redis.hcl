# The Nomad client of a host with the role redis, beside nomad-client.
service "redis-state" {
  policy = "write"
}
service "redis-live" {
  policy = "write"
}
