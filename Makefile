# Each target makes `.venv` where it is missing and reuses it where it is there.
# A bare machine needs python3 (3.11 or newer, with venv) and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format faults fault-workers bench bench-rivals bench-memory bench-scale bench-backbones gpu-check clean

help:                         ## what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

install: $(VENV)/.installed   ## .venv with pinned packages, scivid in editable form, and what its tests need

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.runs
	$(PIP_INSTALL) --editable '.[dev]'
	touch $@

$(VENV)/.runs: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --editable .
	touch $@

demo: $(VENV)/.runs           ## the whole pipeline on generated data: a results table and demo/report.html
	$(BIN)/scivid demo --dir demo

# A worker a core, of which each takes one thread and up to 2 GB.
test: install                 ## the test suite
	$(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist worksteal

SEED ?= 0
TRIES ?= 5000
faults: install               ## files damaged, calls failing, processes killed: a table (SEED=7 TRIES=500), minutes
	$(BIN)/python -m tests.faults.run --seed $(SEED) --tries $(TRIES)

KILLS ?= 20
fault-workers: install        ## Dask workers killed while they extract and sweep (KILLS=20): a table, minutes
	$(BIN)/python -m tests.faults.workers --kills $(KILLS) --seed $(SEED)

lint: install                 ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install               ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install                ## every claim of speed, as ratios measured side by side: a table, and benchmarks.json
	$(BIN)/python -m tests.benchmarks.bench

bench-rivals: install         ## what reading is compared with and a user need not install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '.[bench]'

bench-memory: install         ## peak memory of every task at 1, 2 and 10 times the demo's data, which is made if need be
	$(BIN)/python tests/benchmarks/peak_memory.py

bench-scale: install          ## a store of 10^8 clips by its metadata: seconds, memory, files; 10 GB of disk and 20 minutes
	$(BIN)/python -m tests.benchmarks.scale

bench-backbones: install      ## speed and memory of every backbone with random weights; without a GPU, of the B sizes
	$(BIN)/python tests/benchmarks/backbone_speed.py

gpu-check: install            ## the whole product on a GPU within 8 minutes: gpu-check/table.md, what is right and how fast
	$(BIN)/python tests/benchmarks/gpu_check --out gpu-check

clean:                        ## what the demo and the tools wrote, not .venv
	rm -rf demo gpu-check .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
