# Everything a person or a CI job does here. Needs make, Python 3.11 or newer and a package index;
# each target first sets up the virtual environment it runs in, once.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
VENV_2_11 := .venv-2.11
VENV_BENCHMARKS := .venv-benchmarks
VENV_DOCS := .venv-docs
BIN := $(VENV)/bin
# For pytest, for example: make test ARGS="tests/unit -k schedule"
ARGS ?=

# What happens to be set around us must not leak into the environments made here.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH AIRFLOW_HOME
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The first Python from 3.11 to 3.$(1).
find-python = $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $(1)))' 2>/dev/null \
	&& { command -v $$name; break; }; done)
# The locks are tested up to 3.13; a newer one is better than none.
PYTHON ?= $(or $(call find-python,13),$(call find-python,99))
PYTHON_2_11 ?= $(call find-python,12)
need-python = @test -n "$(1)" || { echo "This needs Python $(2): none of python3, python3.13, \
	python3.12 and python3.11 on the PATH is one. Install it, or name it: make $(3)=/path/to/python" >&2; exit 1; }
PROJECT := setup.cfg pyproject.toml airflow_provider_kling/__init__.py scripts/set_up.py

.PHONY: help demo test test-2.11 check format airflow emulator benchmark docs build lock clean

help: ## list the targets
	@echo "Usage: make <target>"
	@sed -n 's/^\([a-z0-9.-]*\):.*## /  \1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(VENV)/.ready ## from a picture to a video file, through a real Airflow DAG and the emulator
	@$(BIN)/python scripts/demo.py

test: $(VENV)/.ready ## all tests on Airflow 3.3 (choose some with ARGS="...")
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-2.11: $(VENV_2_11)/.ready ## the tests on Airflow 2.11, the oldest supported
	@$(VENV_2_11)/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

check: $(VENV)/.ready ## lint, format and types: ruff, mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.ready ## rewrite the code the way that check wants it
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

airflow: $(VENV)/.ready ## Airflow's web UI with the example DAGs and the emulator, until Ctrl-C
	@$(BIN)/python scripts/airflow_ui.py

emulator: $(VENV)/.ready ## the local stand-in for the vendor's API, until Ctrl-C (options in ARGS="...")
	@$(BIN)/kling-emulator $(ARGS)

benchmark: $(VENV_BENCHMARKS)/.ready ## a measurement that the docs quote: make benchmark ARGS="schedule"
	@$(VENV_BENCHMARKS)/bin/python -m benchmarks $(ARGS)

docs: $(VENV_DOCS)/.ready ## the documentation as a site under build/docs; a warning is an error
	@$(VENV_DOCS)/bin/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs build/docs
	@echo "Open build/docs/index.html"

build: $(VENV)/.ready ## wheel and source distribution under dist/
	@$(BIN)/python -m build --no-isolation

lock: $(VENV)/.ready ## compile requirements/*.txt anew from setup.cfg and requirements/*.in
	@$(BIN)/python scripts/lock.py

clean: ## remove all that make made here
	rm -rf .venv .venv-2.11 .venv-benchmarks .venv-docs .airflow output build dist *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready: requirements/airflow-3.3.txt $(PROJECT)
	$(call need-python,$(PYTHON),3.11 or newer,PYTHON)
	@$(PYTHON) scripts/set_up.py $(VENV) $<
	@touch $@

$(VENV_2_11)/.ready: requirements/airflow-2.11.txt $(PROJECT)
	$(call need-python,$(PYTHON_2_11),3.11 or 3.12,PYTHON_2_11)
	@$(PYTHON_2_11) scripts/set_up.py $(VENV_2_11) $<
	@touch $@

$(VENV_BENCHMARKS)/.ready: requirements/benchmarks.txt $(PROJECT)
	$(call need-python,$(PYTHON),3.11 or newer,PYTHON)
	@$(PYTHON) scripts/set_up.py $(VENV_BENCHMARKS) $<
	@touch $@

$(VENV_DOCS)/.ready: requirements/docs.txt $(PROJECT)
	$(call need-python,$(PYTHON),3.11 or newer,PYTHON)
	@$(PYTHON) scripts/set_up.py $(VENV_DOCS) $<
	@touch $@
