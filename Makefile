# Everything runs in its own environment, $(VENV), made on first use from Python alone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The version the tests were last run with; on a machine with a GPU set TORCH=torch.
TORCH ?= torch==2.13.0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test lint types docs check format clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf '%-14s %s\n' "$$target" "$$text"; done

install: $(VENV)/.dev ## make the environment with all development tools

demo: $(VENV)/.run ## train a small network on digits, prune it to half its MACs, write a report
	$(BIN)/whyprune demo
	@echo "The report is $(CURDIR)/demo/report.html"

test: $(VENV)/.dev ## run all tests; PYTEST_ADDOPTS passes options on
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev ## check types (mypy --strict)
	$(BIN)/mypy

docs: $(VENV)/.dev ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint types docs test ## all of the above but the demo

format: $(VENV)/.dev ## format the code and mend what ruff can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist site .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "whyprune needs Python 3.11 to 3.13: set PYTHON, as in make test PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.torch: | $(BIN)/python
	@echo "Installing $(TORCH) and what it needs into $(VENV): this can take minutes, once"
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	@touch $@

$(VENV)/.run: pyproject.toml $(VENV)/.torch
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.torch
	$(BIN)/python -m pip install --quiet --editable ".[test,lint,docs]"
	@touch $@ $(VENV)/.run
