# Chainstream. `make help` lists the targets.

BINARY   := bin/chainstream
# The Go command stamps the version from git; a source archive has none.
STAMP    := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo true || echo false)
TOOL     := go tool -modfile=tools/go.mod
FUZZTIME ?= 30s
RUNFLAGS ?= --offline-pace=25ms
# Of make chaos: seeds, the first of them, executions of each, and the time over
# which these begin.
SEEDS      ?= 3
SEED       ?= 1
EXECUTIONS ?= 500
LOAD       ?= 40s
# More flags of every server, such as SERVE='--workers 50'.
SERVE      ?=

# Steps follow one another, also under -j: each of them uses all cores itself.
.NOTPARALLEL:
.DEFAULT_GOAL := help
SHELL := /bin/sh

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: setup build ## install what is missing, build, and start on http://127.0.0.1:8080
	@echo "==> starting Chainstream"
	@exec $(BINARY) serve $(RUNFLAGS)

.PHONY: setup
setup: ## only install what running needs: PostgreSQL with pgvector, the embedding model, PDFium
	@echo "==> looking for what Chainstream needs"
	@scripts/setup.sh

.PHONY: setup-test
setup-test:
	@echo "==> looking for what Chainstream and its tests need"
	@scripts/setup.sh --test

.PHONY: models
models: ## only fetch the embedding model and PDFium into build/models
	@scripts/fetch-models.sh --needed

# The program is of use without what it reads beside itself.
.PHONY: build
build: ## build bin/chainstream
	@scripts/fetch-models.sh
	@echo "==> building $(BINARY)"
	@CGO_ENABLED=0 go build -trimpath -buildvcs=$(STAMP) -ldflags '-s -w' -o $(BINARY) ./cmd/chainstream

.PHONY: test
test: setup-test lint vet test-go eval-check e2e-node ## everything a pull request must pass
	@echo "==> all passed"

.PHONY: lint
lint: ## check generated code, formatting, style and imports
	@echo "==> comparing db/ with migrations/ and queries/"
	@$(TOOL) sqlc diff
	@echo "==> linting (the first time, the linter is built: a few minutes)"
	@$(TOOL) golangci-lint run ./...

.PHONY: vet
vet:
	@echo "==> go vet"
	@go vet ./...

# All packages share one throw-away PostgreSQL; without withpg each package
# would start its own. Seeds of fuzz targets run as ordinary tests.
.PHONY: test-go
test-go: ## Go tests with the race detector
	@echo "==> Go tests with the race detector"
	@CGO_ENABLED=1 go run ./internal/pgtest/withpg go test -race -timeout 10m ./...

.PHONY: e2e
e2e: e2e-go e2e-node ## the real program under kills, with foreign clients and in a browser

# Part of test-go as well.
.PHONY: e2e-go
e2e-go:
	@echo "==> end-to-end tests in Go"
	@CGO_ENABLED=1 go run ./internal/pgtest/withpg go test -race -count=1 -timeout 5m ./test/...

.PHONY: e2e-node
e2e-node: build test/e2e/node_modules/.installed
	@echo "==> tests of the page without a browser"
	@node --test --test-reporter=spec web/test/*.test.mjs
	@echo "==> end-to-end tests with clients from npm and a browser"
	@cd test/e2e && CHAINSTREAM_BINARY="$(CURDIR)/$(BINARY)" npm test

test/e2e/node_modules/.installed: test/e2e/package.json test/e2e/package-lock.json | has-node
	@echo "==> installing the packages of the end-to-end tests"
	@cd test/e2e && npm ci --no-audit --no-fund --loglevel=error </dev/null
	@touch $@

.PHONY: has-node
has-node:
	@for program in node npm; do \
		command -v $$program >/dev/null 2>&1 || { echo "$$program is missing: scripts/setup.sh --test installs it" >&2; exit 1; }; \
	done

.PHONY: generate
generate: ## write db/ anew from migrations/ and queries/, and all other generated files
	@echo "==> generating db/"
	@$(TOOL) sqlc generate
	@go generate ./...

.PHONY: fmt
fmt: ## format the Go code
	@$(TOOL) golangci-lint fmt ./...

.PHONY: bench
bench: build ## measure; docs/benchmarks.md explains the figures
	@for program in $$(go list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./bench/... | grep -v '/bench/eval$$'); do \
		echo "==> $$program"; \
		go run "$$program" $(BENCHFLAGS) || exit 1; \
	done

.PHONY: eval
eval: setup-test ## how well searches find the answers of real questions: EVALFLAGS='-model offline/hash'
	@scripts/fetch-eval.sh
	@go run ./bench/eval -limit 60m $(EVALFLAGS)

# A part of it that fails when searches have become worse. Its manuals are a package of
# Debian's, so elsewhere it is left out and says so.
.PHONY: eval-check
eval-check:
	@echo "==> how well searches find answers"
	@if command -v apt-get >/dev/null 2>&1; then \
		scripts/fetch-eval.sh debian-faq && go run ./bench/eval -only debian-faq -check; \
	else \
		echo "not measured: the manuals come from Debian's packages"; \
	fi

# The programs under test are built without the race detector, as they are
# shipped. Killing at named points runs first: it is short and finds most.
.PHONY: chaos
chaos: setup-test ## servers, database and model under faults: SEEDS=3 SEED=1 EXECUTIONS=500 LOAD=40s
	@echo "==> a kill at every named point, a full disk, cancels"
	@go test -tags chaos -count=1 -timeout 15m -v -parallel 4 ./test/chaos \
		-run '^(TestPlain|TestFailpoints|TestDiskFull|TestCancel)$$' -seed $(SEED) -serve '$(SERVE)'
	@echo "==> $(SEEDS) seeds of $(EXECUTIONS) executions, all faults mixed"
	@go test -tags chaos -count=1 -timeout 60m -v ./test/chaos -run '^TestSeeds$$' \
		-seed $(SEED) -seeds $(SEEDS) -executions $(EXECUTIONS) -load $(LOAD) -serve '$(SERVE)'

# go test fuzzes one target of one package at a time.
.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (30s)
	@grep -rl --include='*_test.go' '^func Fuzz' . | grep -v '/node_modules/' | while read -r file; do \
		package=$$(dirname "$$file"); \
		for target in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$$file"); do \
			echo "==> fuzzing $$target in $$package for $(FUZZTIME)"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null || exit 1; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built; data directories stay
	@rm -rf bin build coverage test/e2e/node_modules
