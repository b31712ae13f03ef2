# The one entry: everything a person or CI runs is a target here. `make` alone lists them.
#
# What was done is remembered by stamp files under .make/, so nothing is installed or built twice.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
BIN := .venv/bin
RUST_SOURCES := $(shell find rust -name '*.rs' -not -path '*/target/*') $(shell find rust -name Cargo.toml)
# Test files at a time: those of outages wait more than they work. In the order of their folders, the short ones last.
AT_ONCE ?= 2
NODE_TESTS := tests/contract/node

.PHONY: help demo build test test-rust test-python test-agents check fmt bench wheel lock services clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .make/build  ## build, then send one real request of the OpenAI client through the gateway
	@$(BIN)/sluicegate demo --once

build: .make/build  ## build the extension module into .venv

test: test-rust test-python  ## every test: Rust, unit, boundary, contract (Python and Node), faults

test-rust: .make/cargo  ## the tests of the Rust core alone
	cargo test --locked --package sluicegate-core

test-python: .make/build  ## everything under tests/, two files at a time; ARGS="-k name" for a part
	$(BIN)/python -m pytest --numprocesses $(AT_ONCE) --dist loadfile --no-loadscope-reorder $(ARGS)

test-agents: .make/build .make/agents  ## tool loops of openai-agents, Pydantic AI and LangChain over the gateway
	$(BIN)/python -m pytest tests/agents $(ARGS)

check: .make/build  ## formats, lints, types, the stub, the lock files
	cargo fmt --all --check
	cargo fmt --manifest-path bench/upstream/Cargo.toml --check
	cargo fmt --manifest-path bench/micro/sse/Cargo.toml --check
	cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	cargo metadata --locked --format-version 1 >/dev/null
	cargo metadata --locked --manifest-path bench/upstream/Cargo.toml --format-version 1 >/dev/null
	cargo metadata --locked --manifest-path bench/micro/sse/Cargo.toml --format-version 1 >/dev/null
	scripts/reference --check
	scripts/dashboard --check
	$(BIN)/python -m pytest --quiet tests/unit/test_locks.py tests/contract/python/test_stub.py

fmt: .make/build  ## rewrite the sources in their one format
	cargo fmt --all
	cargo fmt --manifest-path bench/upstream/Cargo.toml
	cargo fmt --manifest-path bench/micro/sse/Cargo.toml
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: .make/build .make/bench  ## measure beside nginx and other gateways; writes bench/RESULTS.md
	bench/run $(ARGS)

wheel: .make/build  ## build dist/*.whl and try it in an environment with nothing else in it
	rm -rf dist
	$(BIN)/maturin build --release --locked --quiet --out dist
	scripts/check-wheel

lock:  ## write requirements/*.txt, Cargo.lock and the Node lock anew
	scripts/lock

services:  ## what tests and benchmarks need beside the registries: PostgreSQL, Redis, and nginx for `make bench`
	scripts/services

clean:  ## remove everything that was built
	rm -rf .make .venv target dist $(NODE_TESTS)/node_modules python/sluicegate/_core*.so

# --- stamps ---------------------------------------------------------------------------------------------------

.make/cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.89 or newer with rustup (Debian's is too old)." >&2; exit 1; }
	@command -v cc >/dev/null || { echo "A C compiler is missing: apt-get install gcc libc6-dev." >&2; exit 1; }
	@mkdir -p .make && touch $@

.make/venv: requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it with PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "Python's venv module is missing: apt-get install python3-venv." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@mkdir -p .make && touch $@

.make/build: .make/venv .make/cargo pyproject.toml Cargo.toml Cargo.lock $(RUST_SOURCES)
	PIP_QUIET=1 VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/maturin develop --release --locked --quiet
	@touch $@

.make/agents: .make/venv requirements/agents.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/agents.txt
	@touch $@

.make/bench: .make/venv requirements/bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@
