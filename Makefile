# make up: run Freehold. make check: everything that CI checks. make help: the rest.
# Needs Python 3.11 or 3.12 with venv, and git. uv, Node, npm and PostgreSQL come with the set-up.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-print-directory
ARGS ?=
TESTS ?= tests
SEEDS ?= 1000
EXAMPLES ?= 2000
BIN := .venv/bin

.PHONY: help bench up setup setup-dev test simulate check format format-check lint types imports generated generate lock wheels clean campaign laws audit described

help:  ## show these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 24

setup:  ## install what running needs
	@python=$$(sh scripts/choose-python) && "$$python" -I scripts/bootstrap.py run

setup-dev:  ## install what developing needs, too
	@python=$$(sh scripts/choose-python) && "$$python" -I scripts/bootstrap.py dev

up: setup  ## set up and start everything in the foreground; ARGS="--port 8403" passes options on
	@exec ./freehold up $(ARGS)

test: setup-dev  ## run the whole suite; TESTS=tests/ledger runs a part
	@mkdir -p .setup && exec $(BIN)/python -m pytest -n 2 --junit-xml=.setup/junit.xml -q $(TESTS)

simulate: setup-dev  ## the ledger under every fault, SEEDS=1000 or from:to; ARGS=--gateway, --json, --trace, --planted all
	@PYTHONPATH=src exec $(BIN)/python -m tests.simulation $(SEEDS) $(ARGS)

check: format-check lint types imports generated test  ## format, lint, types, imports, generated files, tests

bench: setup-dev  ## measure beside LiteLLM, Portkey and nginx; ARGS="--quick" takes three minutes
	@$(BIN)/python bench/run.py $(ARGS)

campaign: setup-dev  ## what the money path is judged by, in full: drains, killed workers, 10,000 cancelled streams; SEED=n draws anew
	@CAMPAIGN=1 $(BIN)/python -m pytest -q --timeout=0 tests/scenarios/test_campaign.py

audit: setup-dev  ## slither and Halmos over the contracts, in environments of their own; ARGS=slither or ARGS=halmos runs one
	@$(BIN)/python scripts/audit.py $(ARGS)

described: setup-dev  ## every route beside its OpenAPI document, EXAMPLES=2000 of each: with a key, as an owner, as the operator
	@SCHEMATHESIS_EXAMPLES=$(EXAMPLES) PYTHONPATH=src exec $(BIN)/python -m pytest -q --timeout=0 tests/gateway/test_described.py \
		tests/app/test_described.py

laws: setup-dev  ## the contracts' laws at length: SEEDS=10000 random histories of each machine, 100,000 draws of curve and burn
	@HISTORIES=$(SEEDS) DRAWS=100000 PYTHONPATH=src exec $(BIN)/python -m pytest -q --durations=0 tests/contracts/test_*_machine.py \
		tests/contracts/test_curve.py tests/contracts/test_burn.py

format: setup-dev  ## write every file in the one format
	@$(BIN)/ruff format src tests scripts bench
	@$(BIN)/ruff check --fix --quiet src tests scripts bench

format-check: setup-dev
	@$(BIN)/ruff format --check src tests scripts bench

lint: setup-dev  ## ruff
	@$(BIN)/ruff check src tests scripts bench

types: setup-dev  ## mypy, strict
	@$(BIN)/mypy

imports: setup-dev  ## imports point down
	@$(BIN)/lint-imports

generated: setup-dev  ## generated pages are what would be generated now
	@$(BIN)/python scripts/generate.py --check

generate: setup-dev  ## write the generated pages
	@$(BIN)/python scripts/generate.py

lock: setup-dev  ## resolve the lock files anew (needs the network)
	@$(BIN)/python scripts/lock.py

wheels: setup-dev  ## list locked packages without a wheel for Linux arm64 or macOS (needs the network)
	@$(BIN)/python scripts/wheels.py

clean:  ## remove the environment and what tools keep; data directories stay
	rm -rf .venv .setup npm/node_modules contracts/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
