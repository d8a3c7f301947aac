# An ingest agent registers its mediamtx, and can do nothing else.
service "mediamtx" {
  policy = "write"
}
