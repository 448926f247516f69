# daeploy: targets for people. `make help` lists them.
GO            ?= go
VERSION       ?= 0.1.0
GOLANGCI      ?= v2.15.0
GOVULNCHECK   ?= v1.9.0
NFPM          ?= v2.45.2
CYCLONEDX     ?= v1.10.0
DIST          ?= dist
CACHE         ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/daeploy
TOOLS         := $(CACHE)/tools
LDFLAGS       := -s -w -X main.version=$(VERSION)
export DAEPLOY_TEST_CACHE ?= $(CACHE)/test
.DEFAULT_GOAL := help
.PHONY: help build deps demo test test-containerd test-systemd faults unit bench bench-peers fuzz kill soak storm lint vuln fmt dist clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

build: ## build bin/daeploy, a static program
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/daeploy ./cmd/daeploy

deps: ## install what demo and tests need (Debian packages, as root)
	@packaging/deps.sh

demo: deps build ## a real push from start to HTTP answer; KEEP=1 leaves it running
	@test/demo.sh

test: deps ## run all tests, in a network of their own
	test/isolate.sh $(GO) test -race -count=1 -timeout 75m $(TESTFLAGS) ./...

test-containerd: deps ## the tests with containers on a newer containerd and runc; CONTAINERD=v2.1.9 RUNC=v1.2.9
	test/containerd.sh test/isolate.sh $(GO) test -count=1 -timeout 75m $(TESTFLAGS) ./container/... ./test

test-systemd: deps ## the packages on a Debian under its own systemd, from install to purge
	test/isolate.sh $(GO) test -count=1 -v -timeout 30m ./test/service

faults: deps ## the tests of the fault matrix, and docs/faults-report.md; ROWS="F12 F13" SEED=7 LONG=1
	DAEPLOY_TEST_SEED=$(SEED) DAEPLOY_TEST_LONG=$(LONG) test/isolate.sh $(GO) run ./test/faults $(ROWS)

unit: ## run the tests that need neither root nor containerd
	$(GO) test -race . ./backup ./buildpipeline ./control ./gitreceive ./metrics ./publish ./store ./systemd ./webhook

bench: deps ## measure, and write docs/benchmarks.md; CASES="a d" N=7
	test/isolate.sh $(GO) test -count=1 -v -timeout 2h -run '^TestBenchmarks$$' ./test -measure "$(or $(CASES),all)" -rounds $(or $(N),5)

bench-peers: ## install what bench compares daeploy with (Debian packages, as root)
	@packaging/deps.sh openssh-server docker.io buildah

fuzz: ## run each fuzz target for FUZZTIME (60s)
	@test/fuzz.sh $(or $(FUZZTIME),60s)

kill: deps ## kill daemon and containerd KILLS times (500) while people push; SEED=n, HISTORY=/DIR
	test/isolate.sh $(GO) test -count=1 -v -timeout 4h -run TestKill ./test -kills $(or $(KILLS),500) -seed $(or $(SEED),0) -calls 0 -history "$(HISTORY)"

soak: deps ## six people work and the daemon is killed for FOR (20m), or 24h; SEED=n, HISTORY=/DIR
	test/isolate.sh $(GO) test -count=1 -v -timeout 0 -run '^TestSoak$$' ./test -soak $(or $(FOR),20m) -seed $(or $(SEED),0) -history "$(HISTORY)"

storm: deps ## STORM (200) pushes while the service is restarted every 5 s
	DAEPLOY_STORM=$(or $(STORM),200) DAEPLOY_STORM_EVERY=5s test/isolate.sh $(GO) test -count=1 -v -timeout 30m ./test/service

lint: $(TOOLS)/golangci-lint-$(GOLANGCI) ## golangci-lint, go vet, go mod tidy, shellcheck
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(TOOLS)/golangci-lint-$(GOLANGCI) run ./...
	$(TOOLS)/golangci-lint-$(GOLANGCI) fmt --diff
	@packaging/deps.sh shellcheck
	git ls-files -s | awk '$$1 ~ /^100/ { print $$4 }' | xargs awk 'FNR == 1 && /^#!\/.*sh$$/ { print FILENAME }' | xargs shellcheck

vuln: ## look the dependencies up in Go's vulnerability database
	$(GO) run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK) ./...

fmt: $(TOOLS)/golangci-lint-$(GOLANGCI) ## format all Go files
	$(TOOLS)/golangci-lint-$(GOLANGCI) fmt

dist: $(TOOLS)/nfpm-$(NFPM) $(TOOLS)/cyclonedx-gomod-$(CYCLONEDX) ## packages for Debian and RPM systems, with checksums and an SBOM
	DIST=$(DIST) packaging/dist.sh $(VERSION) $^

$(TOOLS)/golangci-lint-%: PKG = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(TOOLS)/nfpm-%: PKG = github.com/goreleaser/nfpm/v2/cmd/nfpm
$(TOOLS)/cyclonedx-gomod-%: PKG = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod
$(TOOLS)/%:
	GOBIN=$(TOOLS)/bin $(GO) install $(PKG)@v$(lastword $(subst -v, ,$*))
	mv $(TOOLS)/bin/$(notdir $(PKG)) $@

clean: ## remove what was built
	rm -rf bin dist
