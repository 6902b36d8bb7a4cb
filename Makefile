# The targets and what each is for. The work stands in tools/.
#
# Settings: CARGO_TARGET_DIR (default ~/.cache/aintandem/target), ARGS (more arguments for run, test, chaos, fuzz and demo).
# All targets build the whole workspace, also for one crate's sake: cargo unites the features of what it builds together, and
# another selection would mean another RocksDB (docs/adr/0002).

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help run test verify fix bench chaos fuzz demo build image setup
ARGS ?=
ENV = . tools/env.sh &&

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS=$$'\t' read -r name text; do \
		printf 'make %-8s %s\n' "$$name" "$$text"; done

run: ## a broker on this machine, with its data in ./data; ARGS="--help" shows its settings
	@tools/setup.sh run
	@$(ENV) cargo run --release --bin tandem -- dev $(ARGS)

test: ## all tests but the long fault runs; ARGS="-E 'package(tandem-storage)'" narrows them
	@tools/setup.sh test
	@$(if $(ARGS),,tools/docker.sh && tools/image.sh)
	@# First the examples in the documentation, which nextest does not run: its summary should be the last thing seen.
	@$(if $(ARGS),,$(ENV) cargo test --release --workspace --doc)
	@$(ENV) cargo nextest run --release --workspace $(ARGS)
	@$(if $(ARGS),,tools/python.sh test --quiet)
	@$(if $(ARGS),,tools/typescript.sh test)
	@$(if $(ARGS),,tools/schemathesis.sh)

verify: ## every check that only reads: format, lints, licences, contract, import arrows
	@tools/setup.sh verify
	@tools/verify.sh
	@tools/python.sh verify
	@tools/typescript.sh verify

fix: ## formats, and applies what clippy can repair by itself
	@tools/setup.sh verify
	@$(ENV) cargo clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged
	@$(ENV) cargo fmt --all && cargo fmt --manifest-path fuzz/Cargo.toml

bench: ## the project's figures, on brokers of its own: a table, and JSON beside the build
	@tools/setup.sh run
	@tools/bench.sh
	@tools/bench_cluster.sh

chaos: ## the long fault runs: an hour of a cluster under every fault, kill -9, power loss; sandboxes; then fuzz
	@tools/setup.sh test
	@$(if $(ARGS),,tools/docker.sh)
	@$(ENV) cargo nextest run --release --workspace --profile chaos --run-ignored only --no-tests warn $(ARGS)
	@$(if $(ARGS),,$(ENV) tools/image.sh && cargo build --quiet --release --workspace --bin tandem --bin tandem-control-plane && tools/chaos_sandboxes.py "$$CARGO_TARGET_DIR/release")
	@$(if $(ARGS),,tools/fuzz.sh)

fuzz: ## bytes that a fuzzer invents, for every decoder; ARGS=SECONDS for each, 60 by default
	@tools/setup.sh run
	@tools/fuzz.sh $(ARGS)

demo: ## a team of four in containers, one of which is killed; ARGS="FILE" replays recorded conversations instead
	@tools/setup.sh $(if $(ARGS),run,test)
	@$(if $(ARGS),tools/demo.sh $(ARGS),tools/demo_team.sh)

build: ## the `tandem` command, optimised
	@tools/setup.sh run
	@$(ENV) cargo build --release --workspace --bin tandem && printf '%s\n' "$$CARGO_TARGET_DIR/release/tandem"

image: ## the image that sandboxes run, aintandem/sandbox; nothing is pulled
	@tools/setup.sh test
	@tools/docker.sh && tools/image.sh

setup: ## what the targets need and this machine lacks
	@tools/setup.sh verify
	@echo "setup: everything is there"
