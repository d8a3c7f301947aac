# A worker registers its origin, and can do nothing else.
service "origin" {
  policy = "write"
}
