# Everything here makes what it needs: a virtual environment with uv if it is on PATH, with venv and pip if not.
#   make test PYTHON=python3.12      another Python, in an environment of its own (.venv-3.12)

SHELL := /bin/sh
.DEFAULT_GOAL := help

ifdef PYTHON
  VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo unknown)
endif
VENV ?= .venv
SECONDS ?= 60
TESTS ?=

BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-all
DEV_STAMP := $(VENV)/.installed-dev

# What the coverage gate of dwp_core is measured on: the core's own tests. The others run beside it, without coverage.
CORE_TESTS := $(wildcard tests/core tests/property tests/simulation tests/vectors)
OTHER_TESTS := $(filter-out $(CORE_TESTS) tests/__init__.py tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/)))

.PHONY: help demo test test-only lint format types cover portable pyodide bench bench-quick fuzz docs clean dev

help: ## this list
	@echo "make demo           start a server on SQLite, run jobs on it, watch their events live; ends by itself"
	@echo "make test           lint, types, all tests, the coverage gate (100 % of the branches of dwp_core), make portable"
	@echo "make test-only      all tests, without lint, types and coverage   (TESTS=tests/cli for some of them)"
	@echo "make lint           ruff: rules and format          make format   let ruff write the format"
	@echo "make types          mypy --strict and pyright"
	@echo "make portable       the tests of the core in a Python without msgspec and without C extensions but its own"
	@echo "make pyodide        the same in Pyodide, taken from npm; needs node and npm, and a few minutes"
	@echo "make bench          the table of performance bars, a few minutes   make bench-quick   under one minute"
	@echo "make fuzz           coverage-guided fuzzing, SECONDS=60 for each target"
	@echo "make docs           write the generated parts of docs/ anew"
	@echo "make dev            only the environment, with everything for development"
	@echo "make clean          remove environments, caches and builds"
	@echo
	@echo "PYTHON=python3.12 picks a Python (3.11 or newer); VENV=DIR picks where the environment is."

$(RUN_STAMP): pyproject.toml .ci/venv
	@sh .ci/venv "$(VENV)" "$(PYTHON)" all
	@touch $@

$(DEV_STAMP): pyproject.toml .ci/venv
	@sh .ci/venv "$(VENV)" "$(PYTHON)" dev
	@touch $(RUN_STAMP) $@

dev: $(DEV_STAMP)

demo: $(RUN_STAMP)
	@$(BIN)/dispatch demo

lint: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV_STAMP)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

cover: $(DEV_STAMP)
	$(BIN)/python -m pytest -q -n 2 --cov --cov-report=term $(CORE_TESTS) --doctest-modules dwp_core

portable: $(DEV_STAMP)
	$(BIN)/python -m tests.portable

pyodide: $(DEV_STAMP)
	$(BIN)/python -m tests.portable.pyodide

test: lint types cover portable
	$(BIN)/python -m pytest -q -n 2 $(OTHER_TESTS)
	$(BIN)/python -m pytest -q --doctest-modules bindings/dispatch

test-only: $(DEV_STAMP)
	$(BIN)/python -m pytest -q -n 2 $(TESTS)

bench: $(DEV_STAMP)
	$(BIN)/python -m benchmarks

bench-quick: $(DEV_STAMP)
	$(BIN)/python -m benchmarks --quick

fuzz: $(DEV_STAMP)
	$(BIN)/python -m fuzz --seconds $(SECONDS)

docs: $(DEV_STAMP)
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
