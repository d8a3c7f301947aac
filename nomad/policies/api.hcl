# What the job api may do in Nomad: read the nodes, follow the events of allocations in its namespace, read what
# they use, and change how many instances a job has (scale-job, for -var=scale_jobs; it may not submit a job).
# Its own Nomad variables it may read without a policy.

node {
  policy = "read"
}

namespace "default" {
  capabilities = ["read-job", "scale-job"]
}
