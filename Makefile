# Everything a person or a CI job does here. Needs make, Python 3.11 or newer and a package index;
# each target first sets up the virtual environment it runs in, once.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Which Airflow: 2.11, 3.0, 3.1, 3.2, 3.3, 3.4, or lowest, for the lower bounds of setup.cfg.
AIRFLOW ?= 3.3
VENV := $(if $(filter 3.3,$(AIRFLOW)),.venv,.venv-$(AIRFLOW))
BIN := $(VENV)/bin
# For pytest, for example: make test ARGS="tests/unit -k schedule"
ARGS ?=

# What happens to be set around us must not leak into the environments made here.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH AIRFLOW_HOME PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The first Python from 3.11 to 3.$(1).
find-python = $(shell for name in python3 python3.13 python3.12 python3.11; do \
	$$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, $(1)))' 2>/dev/null \
	&& { command -v $$name; break; }; done)
# The locks are tested up to 3.13; a newer one is better than none. The oldest Airflows end at 3.12.
newest-python = $(if $(filter 2.11 3.0 lowest,$(1)),12,13)
PYTHON ?= $(or $(call find-python,$(call newest-python,$(AIRFLOW))),\
	$(if $(filter 13,$(call newest-python,$(AIRFLOW))),$(call find-python,99)))
PROJECT := setup.cfg pyproject.toml airflow_provider_kling/__init__.py scripts/set_up.py

.PHONY: ui check-ui test-ui ui-pictures help demo test test-system soak matrix check audit format airflow emulator benchmark docs build release-check coverage lock clean

help: ## list the targets
	@echo "Usage: make <target>"
	@sed -n 's/^\([a-z0-9.-]*\):.*## /  \1	/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

demo: $(VENV)/.ready ## from a picture to a video file, through a real Airflow DAG and the emulator
	@$(BIN)/python scripts/demo.py

test: $(VENV)/.ready ## all tests but tests/system (some: ARGS="..."; on another Airflow: AIRFLOW=3.1)
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-system: $(VENV)/.ready ## a distributed Airflow in which processes, services and the vendor fail
	@$(BIN)/python -m pytest tests/system $(ARGS)

soak: $(VENV)/.ready ## 2,000 generations with faults on every kind of call, for hours (fewer: KLING_SOAK=100)
	@KLING_SOAK=$${KLING_SOAK:-2000} $(BIN)/python -m pytest -s tests/system/test_soak.py $(ARGS)

# make test-2.11, make test-3.4, make test-lowest ...
test-%:
	@$(MAKE) --no-print-directory test AIRFLOW=$*

coverage: $(VENV)/.ready ## lines and branches of the package that the tests run; below 95 % fails
	@$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report term:skip-covered --cov-fail-under 95 $(ARGS)

matrix: .venv/.ready ## unit, contract and Airflow tests on each Airflow and each Python there is
	@.venv/bin/python scripts/matrix.py $(ARGS)

check: $(VENV)/.ready ## lint, format and types: ruff, mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

audit: $(VENV)/.ready ## known vulnerabilities of what the lock pins (needs the advisories of PyPI)
	@$(BIN)/uv tool run pip-audit==2.10.1 --strict --no-deps --disable-pip --progress-spinner off \
		--requirement requirements/airflow-$(AIRFLOW).txt

format: $(VENV)/.ready ## rewrite the code the way that check wants it
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

ui: $(VENV)/.ready ui/node_modules/.ready ## build the page of the Airflow plugin (needs Node 20 or newer)
	@$(BIN)/python ui/schema.py ui/openapi.json
	@cd ui && npm run --silent schema >/dev/null && npm run --silent types && npm run --silent build

check-ui: $(VENV)/.ready ui/node_modules/.ready ## check that the page in the package is the one built from ui/
	@$(BIN)/python ui/check.py

test-ui: $(VENV)/.ready ui/node_modules/.ready ## the plugin in a real Airflow and a headless Chromium (needs Chromium)
	@$(BIN)/python -m pip install --quiet --no-deps --requirement tests/ui/requirements.txt
	@KLING_UI_TESTS=needed $(BIN)/python -m pytest -n 0 tests/ui $(ARGS)

ui-pictures: $(VENV)/.ready ## put screenshots that test-ui has taken into docs/images
	@$(BIN)/python ui/pictures.py

ui/node_modules/.ready: ui/package-lock.json ui/.npmrc
	@cd ui && npm ci --silent --ignore-scripts
	@touch $@

airflow: $(VENV)/.ready ## Airflow's web UI with the example DAGs and the emulator, until Ctrl-C
	@$(BIN)/python scripts/airflow_ui.py

emulator: $(VENV)/.ready ## the local stand-in for the vendor's API, until Ctrl-C (options in ARGS="...")
	@$(BIN)/kling-emulator $(ARGS)

benchmark: .venv-benchmarks/.ready ## a measurement that the docs quote: make benchmark ARGS="schedule"
	@.venv-benchmarks/bin/python -m benchmarks $(ARGS)

docs: .venv-docs/.ready ## the documentation as a site under build/docs; a warning is an error
	@.venv-docs/bin/sphinx-build --quiet --fail-on-warning --keep-going --builder html docs build/docs
	@echo "Open build/docs/index.html"

build: $(VENV)/.ready ## wheel and source distribution under dist/, the same bytes for the same commit
	@$(BIN)/python scripts/build.py

release-check: $(VENV)/.ready ## what is missing before this commit can be released
	@$(BIN)/python scripts/release_check.py

lock: $(VENV)/.ready ## compile requirements/*.txt again from setup.cfg and requirements/*.in
	@$(BIN)/python scripts/lock.py

clean: ## remove all that make made here
	rm -rf ui/node_modules .venv .venv-* .airflow output build dist *.egg-info
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define set-up
	@test -n "$(PYTHON)" || { echo "No python3, python3.13, python3.12 or python3.11 on the PATH is a \
	Python that this Airflow runs on. Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) scripts/set_up.py $(@D) $<
	@touch $@
endef

.venv/.ready: requirements/airflow-3.3.txt $(PROJECT)
	$(set-up)

.venv-%/.ready: requirements/airflow-%.txt $(PROJECT)
	$(set-up)

.venv-%/.ready: requirements/%.txt $(PROJECT)
	$(set-up)
