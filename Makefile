.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
export HF_HUB_OFFLINE ?= 1

.PHONY: help setup train eval test test-slow check format clean

help: ## Show what there is.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

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

test-slow: $(STAMP) ## Run the rest: against peers (pip install the extra "peers") and in full size.
	$(BIN)/python -m pytest -m "slow and not gpu"

check: $(STAMP) ## Lint, format and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## Format, and fix what can be fixed.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the environment and caches; runs stay.
	rm -rf .venv .cache build .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
