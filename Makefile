# Two commands set everything up on a fresh machine: `make repro` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help install repro test check lock clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: .venv/installed ## install the locked packages and maskcast into .venv

.venv/installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.8
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

repro: .venv/installed ## run the whole pipeline on the embedded default and show its scores
	dvc repro
	@cat results/report/scores.md
	@echo "picture: $(CURDIR)/results/report/forecast.png"

test: .venv/installed ## pass all tests
	pytest --numprocesses 2 --dist loadfile

check: .venv/installed ## lint, format and types
	ruff check .
	ruff format --check .
	mypy

lock: .venv/installed ## compile requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --no-header --extra dev pyproject.toml --output-file requirements.lock

clean: ## remove what the pipeline wrote (DVC's cache stays)
	rm -rf data models results dvc_plots
