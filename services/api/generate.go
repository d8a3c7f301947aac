package api

//go:generate go run -modfile=../../tools/oapi/go.mod github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen -config oapi.yaml openapi.yaml
