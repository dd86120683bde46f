# Every command that a person or CI runs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
# Simulation: number of seeds, or one seed to replay with SEED=n.
SEEDS ?= 500
# How long the parser of job files is fed with broken ones.
MINUTES ?= 10
# Random operations of the comparison between the two stores.
OPS ?= 20000

.PHONY: help setup build release demo test test-unit test-cgroup2 sim diff fuzz bench fmt fmt-check lint verify clean-dev

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9%-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install by apt what the build and the tests need; silent when all is there
	@scripts/setup.sh

build: setup ## Build the program for development: target/debug/herder
	@$(CARGO) build --quiet

release: setup ## Build the optimised program: target/release/herder
	$(CARGO) build --release

demo: build ## Start a cluster in one process, run a service and a batch job, look at them, clean up
	@scripts/demo.sh target/debug/herder

test: setup ## All tests; starts dockerd if none answers and ends it again
	@scripts/test.sh

test-unit: setup ## The tests inside the modules and the layout checks; a few seconds when warm
	$(CARGO) test --lib
	$(CARGO) test --test tidy

test-cgroup2: setup ## Tasks under control groups of version 2, in a virtual machine; a quarter of an hour, fetches a kernel
	@scripts/cgroup2.sh

sim: setup ## Whole-cluster simulation with SEEDS seeds (500); SEED=n replays one
	SEEDS=$(SEEDS) $(CARGO) test --test sim -- --nocapture

diff: setup ## Compare the embedded store with etcd by OPS random operations (20000)
	HERDER_DIFF_OPS=$(OPS) $(CARGO) test --test store differential

fuzz: setup ## Feed the parser of job files with mutated ones for MINUTES (10); what fails is kept in target/fuzz
	MINUTES=$(MINUTES) $(CARGO) test --test jobspec -- --ignored --nocapture mutated_files_for_minutes

bench: setup ## Measure; see docs/performance.md
	$(CARGO) bench --bench '*'

bench-%: setup ## One measurement, for example `make bench-placements`
	$(CARGO) bench --bench $*

fmt: ## Format the code
	$(CARGO) fmt

fmt-check:
	$(CARGO) fmt --check

lint: ## Clippy; warnings are errors
	$(CARGO) clippy --quiet --all-targets -- --deny warnings

verify: fmt-check lint test ## What has to pass before a change is handed in

clean-dev: ## End what an interrupted `make test` left running, and remove .dev
	@scripts/docker.sh stop
	rm -rf .dev
