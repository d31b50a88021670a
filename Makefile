# Everything here works in a fresh clone: each target first makes .venv and installs what it needs.
# Needs python3 (3.11 or newer, with venv) and make; PYTHON=... picks another interpreter.

PYTHON ?= python3
VENV := .venv
# Tests run side by side, each on one core.
WORKERS ?= auto
# These begin several processes each and say how long things may take, so they run one by one.
ALONE := tests/distributed tests/reliability
SLOW := -m "slow and not soak" --durations=25 --durations-min=5
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help demo test test-slow soak check format bench clean

help:
	@echo "make demo       train on synthetic faces, compare the methods; runs/demo/report.html"
	@echo "make test       the tests that take seconds each"
	@echo "make test-slow  the tests that train"
	@echo "make soak       hours of kills, stops, faults and fuzzing; SOAK_MINUTES=60 of the mixed"
	@echo "                one, FUZZ_SHARE=1 of all cases"
	@echo "make check      lint, formatting and types"
	@echo "make format     mend lint and formatting"
	@echo "make bench      the benchmarks; writes benchmarks/results"
	@echo "make clean      remove .venv and caches (runs stay)"

demo: $(VENV)/.installed
	$(BIN)/manyface demo

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not soak"

test-slow: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(SLOW) $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest $(SLOW) $(ALONE)

soak: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m soak -rP

check: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed-dev
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do \
	    echo "== $$script"; $(BIN)/python $$script; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "manyface needs Python 3.11 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing manyface into $(VENV); the first time takes some minutes."
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing manyface and what its tests need into $(VENV); the first time takes some minutes."
	$(PIP) --editable '.[dev]'
	@touch $(VENV)/.installed $@
