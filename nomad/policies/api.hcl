# What the job api may do in Nomad: read the nodes, and follow the events of allocations in its namespace.
# Its own Nomad variables it may read without a policy.

node {
  policy = "read"
}

namespace "default" {
  capabilities = ["read-job"]
}
