# `make quickstart` and `make test` are all that a fresh machine needs (Python >= 3.11 and a C++ compiler).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt

# Tests that need a system tool skip themselves without it; here it is said aloud, and with CI set it fails.
define CHECK_TOOLS
{ missing=0; \
  need() { what=$$1; shift; for tool in "$$@"; do command -v "$$tool" >/dev/null 2>&1 && return; done; \
    echo "missing: $$1 ($$what); tests that need it were skipped"; missing=1; }; \
  need "the engine and compiled models" $(CXX) clang++; \
  need "checkout and change checks" git; \
  need "running generated code" bwrap; \
  need "pages in a browser" chromium chromium-browser google-chrome; \
  test $$missing = 0 -o -z "$(CI)"; }
endef

.PHONY: help quickstart test test-all lint tools clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

quickstart: $(VENV)/.installed-run ## grow a small model from raw text, end to end, in a few minutes
	@$(BIN)/pippin run quickstart

# Each check runs and speaks, whatever the one before said; the last line decides. Tests compute on one thread each, so
# two processes share their files.
test: $(VENV)/.installed-test ## style, types, tests (not the slow ones)
	@failed=0; \
	$(BIN)/python -m ruff check . || failed=1; \
	$(BIN)/python -m mypy || failed=1; \
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS) || failed=1; \
	$(CHECK_TOOLS) || failed=1; \
	exit $$failed

test-all: PYTEST_ARGS = -m "slow or not slow"
test-all: test ## the same with the slow tests

lint: $(VENV)/.installed-test ## ruff and mypy alone
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m mypy

tools: ## say which system tools are missing
	@$(CHECK_TOOLS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Python 3.11 or newer is needed, '$(PYTHON)' is not that; try: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# The engine is compiled by the installation, and anew when its sources change.
ENGINE := $(wildcard src/pippin/device/csrc/*)

$(VENV)/.installed-run: pyproject.toml constraints.txt $(ENGINE) | $(VENV)/bin/python
	@echo "installing into $(VENV) (once; a few minutes)"
	@$(PIP_INSTALL) --editable '.[train,data]'
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt $(ENGINE) | $(VENV)/bin/python
	@echo "installing into $(VENV) (once; a few minutes)"
	@$(PIP_INSTALL) --editable '.[all]'
	@touch $@

clean: ## remove the environment, builds and caches (never runs/)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
