# One door to all that can be done with this repository. `make` alone prints the goals.

SHELL := /bin/bash
CARGO ?= cargo
FUZZ_SECONDS ?= 60
export CARGO_TERM_COLOR ?= auto

.DEFAULT_GOAL := help
.PHONY: help build demo demo-kubernetes test e2e clouds lint bench soak fuzz setup

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the binary, optimised: target/release/stillframe
	$(CARGO) build --release --locked

demo: ## the whole story with a real server, visibly: load, back up hot, verify, restore, replicate, compare
	$(CARGO) test --locked --features e2e --test demo

demo-kubernetes: setup ## the same on a real cluster: apply a backup, a schedule, a restore; see what a user sees; compare
	e2e/run demo

# The servers and the tracer that tests need, found or installed into the user's cache folder.
setup:
	@for script in tests/setup/mysql.sh tests/setup/versitygw.sh tests/setup/strace.sh; do echo "$$script: $$($$script)" || exit 1; done

# One set of features for tests, scenarios and lint: the program is compiled once for all of them. Tests wait for servers
# more than they work, so that two more at a time than there are cores keep those busy.
test: export RUST_TEST_THREADS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 2)))
test: setup ## all tests, and the short set of the scenarios on a real cluster (E2E=all: all); half an hour on 2 cores, from nothing
	$(CARGO) test --locked --no-fail-fast --features e2e
	@if [ -n "$$KUBECONFIG" ] || e2e/cluster/able; then e2e/run $(or $(E2E),core); else \
		echo; echo "NOT RUN, for the reason above: the scenarios on a real cluster (make e2e E2E=$(or $(E2E),core))"; fi

e2e: setup ## scenarios on a real cluster: $KUBECONFIG, or one of its own (root, Linux); E2E=core or a name for some of them
	e2e/run $(E2E)

# Not a part of `test`: the emulator is a package of npm, which is installed into the user's cache folder the first time.
clouds: ## the store's whole suite over an emulator of Azure's store (Azurite; needs Node and npm, or STILLFRAME_AZURITE)
	$(CARGO) test --locked --features e2e --test clouds

# "All targets" are not those that goals of their own run.
OWN_GOALS = --test api_server --test clouds --test demo --test e2e --test soak

lint: ## format, clippy with and without default features, documentation, layers
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets --features e2e -- -D warnings
	$(CARGO) clippy --locked --features e2e $(OWN_GOALS) -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	$(CARGO) test --locked --features e2e --test layers

bench: ## ratios against CLONE, zstd and others on 2 GB of data (STILLFRAME_BENCH_GB), as a table
	$(CARGO) bench --locked --bench ratios

# What it alone covers: at least 50 kills of a backup and 50 of a native restore at random moments, lock waits included;
# then native recovery against the server's of more work than `make test` has, of other rows each time, for all cases on
# pages of every size: each round names its seed. More than an hour on two cores, and 15 GB of disk.
soak: setup ## kills at random moments, over and over; native recovery of random work against the server's
	$(CARGO) test --locked --features e2e --test soak -- --nocapture
	for size in 16384 4096 8192 16384 32768 65536; do seed=$$RANDOM; \
		echo "native recovery, STILLFRAME_PAGE_SIZE=$$size STILLFRAME_SEED=$$seed STILLFRAME_SCALE=3"; \
		STILLFRAME_PAGE_SIZE=$$size STILLFRAME_SEED=$$seed STILLFRAME_SCALE=3 $(CARGO) test --locked --features e2e --test native -- \
			--nocapture --skip pages_of_4k --skip pages_of_8k --skip pages_of_32k --skip pages_of_64k || exit 1; done

# The same versions as the program's; and without a nightly toolchain, since the one here has all that is needed.
fuzz: ## each decoder, apply, and the check of structures for FUZZ_SECONDS (60) each; needs cargo-fuzz (fuzz/README.md)
	cp Cargo.lock fuzz/Cargo.lock
	cd fuzz && for target in $$($(CARGO) fuzz list); do \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=20 || exit 1; done
