# The environment is made on the first call and re-made when the lock changes; nothing is installed by hand.
PYTHON ?= python3
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

.PHONY: help setup demo test check ward lock clean

help:
	@echo 'make demo    train on real images that come with a package, and write a report'
	@echo 'make test    run the test suite'
	@echo 'make check   formatting, lint, types'
	@echo 'make ward    the quickest part of the benchmark of the doctor: a few minutes on two cores'
	@echo 'make lock    re-compile requirements.lock from pyproject.toml (make lock UPGRADE=--upgrade for newer versions)'
	@echo 'make setup   make the environment in $(VENV) (the others do it by themselves)'
	@echo 'make clean   remove the environment, caches and builds; runs/ stays'

setup: $(READY)

$(READY): requirements.lock pyproject.toml scripts/setup.sh scripts/bootstrap.sh
	@sh scripts/setup.sh '$(PYTHON)' $(VENV)
	@touch $@

demo: $(READY)
	$(BIN)/snellen train sample:digits

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

ward: $(READY)
	@rm -f build/ward.jsonl && mkdir -p build
	$(BIN)/python benchmarks/ward/run.py --part ci --doctors snellen always rules --processes $(WORKERS) --out build/ward.jsonl
	$(BIN)/python benchmarks/ward/table.py build/ward.jsonl --least-first 0.8

lock:
	@sh scripts/lock.sh '$(PYTHON)' $(VENV) $(UPGRADE)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
