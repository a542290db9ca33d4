# Everything a person or a CI machine types. `make help` lists it.
# Needs rustup and a C compiler; the pinned toolchain and the two test tools are fetched when they are absent.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run build test fmt tidy bench test-release dist tools toolchain clean

export PATH := $(CURDIR)/target/tools/bin:$(HOME)/.cargo/bin:$(PATH)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22

run: toolchain ## build, then show everything at once: `stockade demo`
	@cargo build --locked --workspace --bins
	@$(TARGET_DIR)/debug/stockade demo

build: toolchain ## build the programs
	@cargo build --locked --workspace --bins

test: tools ## every check: format, lints, house rules, dependencies, tests, fuzz smoke
	@.ci/test

fmt: toolchain ## format the sources
	@cargo fmt --all

tidy: toolchain ## house rules only
	@cargo xtask tidy

bench: toolchain ## release build measured beside the peers that are installed; prints one Markdown table
	@cargo build --locked --release --workspace --bins --examples
	@tests/bench/run $(BENCH_ARGS)

test-release: tools ## the tests again, compiled as they ship
	@.ci/test --release

dist: toolchain ## one static program with checksums and a list of its parts, in target/dist
	@.ci/dist $(DIST_ARGS)

toolchain: ## the compiler that rust-toolchain.toml names
	@.ci/tools toolchain

tools: ## the compiler, cargo-nextest and cargo-deny
	@.ci/tools all

clean: ## remove what was built, the tools too
	@rm -rf target
