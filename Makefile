.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
PLATFORMS := manylinux_2_28_x86_64 manylinux_2_24_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64 manylinux1_x86_64
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup train eval test test-slow check format bench bench-data bench-inference bench-gpu wheels clean

help: ## Show what there is.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

setup: $(STAMP) ## Create .venv with pinned dependencies.

train: $(STAMP) ## Train the main job: ORPO on the mini world, on CPU, offline.
	$(BIN)/python train.py +experiment=orpo

eval: $(STAMP) ## Evaluate what `make train` wrote.
	$(BIN)/python eval.py policy=outputs/orpo/policy task=mini

test: $(STAMP) ## Run the tests that take seconds.
	$(BIN)/python -m pytest -m "not slow and not gpu"

test-slow: $(STAMP) ## Run the rest: against peers and a server (extras "peers", "serving"), in full size.
	$(BIN)/python -m pytest -m "slow and not gpu"

check: $(STAMP) ## Lint, format and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Format, and fix what can be fixed.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure training beside TRL on this CPU, in under 15 minutes; wants an idle machine.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[peers]'
	$(BIN)/python -m benchmarks cpu

bench-data: $(STAMP) ## Measure what is done to data before training, in under 15 minutes; wants an idle machine.
	$(BIN)/python -m benchmarks data

bench-inference: $(STAMP) ## Measure calls to a local server, and what a kill costs, in under 15 minutes; wants an idle machine.
	$(BIN)/python -m benchmarks inference

# Without the folder wheels/ the environment must hold everything; with it nothing is fetched.
bench-gpu: $(if $(wildcard wheels),,$(STAMP)) ## Measure on one GPU, without network, in under 10 minutes; see benchmarks/README.md.
	if [ -d wheels ]; then $(PYTHON) -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target .wheels wheels/*.whl; fi
	PYTHONPATH=.wheels:src $$([ -d wheels ] && echo $(PYTHON) || echo $(BIN)/python) -m benchmarks gpu

wheels: $(STAMP) ## Download what a machine with torch and transformers lacks for bench-gpu, for Python 3.12.
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --constraint constraints.txt --dest wheels \
	  --python-version 3.12 --implementation cp $(foreach p,$(PLATFORMS),--platform $(p)) -r benchmarks/wheels.txt
	$(BIN)/python -m pip wheel --quiet --no-deps --constraint constraints.txt --wheel-dir wheels antlr4-python3-runtime

clean: ## Remove the environment and caches; runs stay.
	rm -rf .venv .cache build .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
