# Each target sets up what it needs: a virtual environment in .venv with the tested versions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install test test-slurm test-eightbit test-robustness lint types quickstart clean

help:
	@echo "make quickstart      the whole way on drawn lesions, about 5 minutes on 2 cores"
	@echo "make test            the tests"
	@echo "make test-slurm      those on a real Slurm, which they start; as root on Debian or Ubuntu"
	@echo "make test-eightbit   those of 8-bit optimizers; installs bitsandbytes"
	@echo "make test-robustness bad inputs of all commands and keys, each in a process of its own"
	@echo "make lint types      ruff and mypy"
	@echo "make clean           remove .venv and the quickstart's folder"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not real_data and not eightbit"

test-slurm: $(INSTALLED)
	command -v slurmctld > /dev/null || tests/slurm/cluster.sh install
	PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m pytest -m slurm tests/slurm -p no:cacheprovider

test-eightbit: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,eightbit]'
	$(BIN)/python -m pytest -m eightbit

test-robustness: $(INSTALLED)
	$(BIN)/python -m tests.robustness

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

quickstart: $(INSTALLED)
	PYTHON=$(BIN)/python bash configs/quickstart/run.sh

clean:
	rm -rf $(VENV) quickstart
