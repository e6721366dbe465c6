# Every target sets itself up: .venv is made when absent and brought up to date when pyproject.toml
# changes. Another interpreter: make test PYTHON=python3.12 (remove .venv first with make clean-venv).

SHELL := bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test test-slow lint format bench clean clean-venv

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY)  ## set up, then a small shop the whole way to an HTML report
	@$(BIN)/mmalign demo

# A test works on tiny arrays, where threads only wait for each other: processes share the cores.
test: export OMP_NUM_THREADS ?= 1
test-slow: export OMP_NUM_THREADS ?= 2

test: $(READY)  ## set up, then the fast tests (under five minutes)
	@$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-slow: $(READY)  ## the tests that take minutes, the wheel in an empty environment among them
	@$(BIN)/pytest -m "slow and not benchmark and not gpu and not browser"

lint: $(READY)  ## style, format and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(READY)  ## mend what can be mended by itself
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(READY)  ## the committed benchmarks
	@$(BIN)/pytest tests/benchmarks -m benchmark -s --timeout=0

clean:  ## remove what builds and tests leave behind
	rm -rf build dist *.egg-info .coverage htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-venv:  ## remove the virtual environment too
	rm -rf $(VENV)

# The whole output of pip goes to a log. Shown are the large downloads and the steps, or, on failure,
# the end of the log.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "mmalign needs Python 3.11 or newer (got $$($(PYTHON) -V 2>&1)):" \
	    "make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): some minutes and gigabytes the first time."
	@set -o pipefail; \
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[offline,dev]' 2>&1 \
	  | tee $(VENV)/install.log \
	  | while IFS= read -r line; do case $$line in \
	      *Downloading*[0-9][0-9][0-9].[0-9]" MB"*) echo "$$line" ;; \
	      "Installing collected"*) echo "  All packages are here, unpacking." ;; \
	    esac; done \
	  || { tail -n 15 $(VENV)/install.log >&2; exit 1; }
	@touch $@
	@echo "Ready."
