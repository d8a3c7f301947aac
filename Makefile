# make help lists what this can do. Parts that are missing are installed or built first (tools/deps.sh).
#
#   ARGS   for run, cluster and the benches: more arguments, as in  make run ARGS=--no-demo
#   PKG    for test: only these packages, as in      make test PKG=./services/store/... TESTFLAGS='-v -run Reserve'
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The parts that tools/deps.sh found or made, as DIONYSIA_* variables, and a new enough go on PATH.
ENV := eval "$$(tools/deps.sh env)"

# go-nvml wraps all of NVIDIA's library, the deprecated half included; the compiler says so at length.
export CGO_CFLAGS ?= -g -O2 -Wno-deprecated-declarations

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## start everything on this machine, with a test picture to watch
	@tools/deps.sh run
	@$(ENV); echo "building bin/dionysia"; go build -o bin/dionysia .
	@$(ENV); exec bin/dionysia dev $(ARGS)

.PHONY: cluster
cluster: ## start a Nomad and Consul cluster on this machine, with a test picture: four hosts as root, otherwise one
	@tools/deps.sh cluster
	@tools/cluster.sh up $(ARGS)

.PHONY: cluster-down
cluster-down: ## remove every trace of the cluster
	@tools/cluster.sh down

.PHONY: build
build: ## build bin/dionysia
	@tools/deps.sh go
	@$(ENV); go build -o bin/dionysia .

# Packages whose tests transcode in real time have the machine to themselves, one at a time: beside others, two
# cores would make a publisher or a GPAC fall behind.
MEDIA := ./services/ingest/... ./worker ./worker/origin/... ./worker/transcode/...

.PHONY: test
test: ## run every test: unit, integration with the real parts, end to end
	@tools/deps.sh test
ifdef PKG
	@$(ENV); go test -timeout 40m $(TESTFLAGS) $(PKG)
else
	@$(ENV); echo "go test: unit and integration"; \
	go list ./... | grep -v '/dionysia/e2e\(/\|$$\)' | grep -vxFf <(go list $(MEDIA)) | xargs go test -race -timeout 20m $(TESTFLAGS)
	@$(ENV); echo "go test: with media in real time"; go test -race -p 1 -timeout 20m $(TESTFLAGS) $(MEDIA)
	@$(ENV); [ ! -d e2e ] || { echo "go test: end to end"; go list ./e2e/... | grep -v '/e2e/provision$$' | xargs go test -v -count=1 -p 1 -timeout 45m $(TESTFLAGS); }
	@if [ "$$(id -u)" = 0 ]; then $(MAKE) --no-print-directory test-provision; \
	else echo "not run, it needs root: make test-provision"; fi
endif

.PHONY: test-provision
test-provision: ## as root: test the provisioning scripts in a fresh Debian, and Terraform's module against it
	@tools/deps.sh test
	@$(ENV); skip=; command -v terraform >/dev/null || { skip='-skip=Terraform'; \
	echo "not run, terraform is not on PATH: the test of terraform/bare-metal"; }; \
	go test -v -count=1 -timeout 30m $$skip $(TESTFLAGS) ./e2e/provision

# The scripts that shellcheck reads, with what they source.
SCRIPTS := tools/deps.sh tools/cluster.sh tools/cluster/init.sh tools/cluster/until.sh tools/cluster/validate.sh .ci/run \
	tools/backup.sh packer/build.sh $(addprefix tools/provision/,provision.sh uninstall.sh bundle.sh validate.sh)

.PHONY: lint
lint: ## check formatting, generated files, imports and the usual mistakes
	@tools/deps.sh lint
	@$(ENV); echo "gofmt"; unformatted=$$(gofmt -l .); \
	[ -z "$$unformatted" ] || { printf 'not formatted (gofmt -w):\n%s\n' "$$unformatted"; exit 1; }
	@$(ENV); echo "go mod tidy"; go mod tidy -diff
	@$(ENV); echo "go generate"; before=$$($(GENERATED)); go generate ./...; after=$$($(GENERATED)); \
	[ "$$before" = "$$after" ] || { echo 'generated files were out of date; they are renewed now:'; \
	diff <(echo "$$before") <(echo "$$after") || true; exit 1; }
	@$(ENV); echo "go vet"; go vet ./...
	@$(ENV); echo "golangci-lint"; "$$DIONYSIA_GOLANGCI_LINT" run ./...
	@$(ENV); echo "shellcheck"; "$$DIONYSIA_SHELLCHECK" -x $(SCRIPTS)
	@$(ENV); tools/cluster/validate.sh
	@tools/provision/validate.sh

# By hand, on a machine with an NVIDIA card and a GPAC (on PATH, or DIONYSIA_GPAC).
.PHONY: test-gpu
test-gpu: ## on a machine with an NVIDIA card: probe it, prove and measure its encoders
	@tools/deps.sh go
	@$(ENV); go test -tags gpu -count=1 -v -timeout 15m $(TESTFLAGS) -run '^TestRealCards$$' ./worker/device

# Generated files are named *_gen.go.
GENERATED := find . -name '*_gen.go' -exec sha256sum {} + | sort -k 2

.PHONY: generate
generate: ## renew the generated files
	@tools/deps.sh go
	@$(ENV); go generate ./...

.PHONY: bench
bench: ## measure against ffmpeg and nginx, side by side
	@tools/deps.sh bench
	@$(ENV); go build -o bin/dionysia .; go run ./e2e/bench $(ARGS)

.PHONY: bench-placement
bench-placement: ## measure how fast placements are made, and how well beside what other systems do
	@tools/deps.sh run
	@$(ENV); go run ./e2e/bench/placement $(ARGS)

.PHONY: bench-cluster
bench-cluster: ## measure a cluster: job run, drain, finding origins, Consul's writes (as root)
	@tools/deps.sh bench
	@$(ENV); go build -o bin/dionysia .; export DIONYSIA_BIN=$$PWD/bin/dionysia; go run ./e2e/bench/cluster $(ARGS)

.PHONY: deps
deps: ## only install or build what run, test, lint and bench need
	@tools/deps.sh bench
	@tools/deps.sh lint

.PHONY: clean
clean: ## remove what was built here; the parts in the cache stay
	rm -rf bin
