# Two commands set everything up on a fresh machine: `make repro` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Each stage is a process: without bytecode each would compile thousands of modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install repro test test-fast check image lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: .venv/installed ## install the locked packages and maskcast into .venv

.venv/installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep -o '^uv==[0-9.]*' docker/build.lock)
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

repro: .venv/installed ## run the whole pipeline on the embedded default and show its scores
	dvc repro
	@maskcast summary

test-fast: .venv/installed ## pass the unit and contract tests, which need no server, in minutes
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/unit tests/contract

test: .venv/installed ## pass all tests
	tests/with_docker.sh pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: .venv/installed ## lint, format, layers and types
	ruff check .
	ruff format --check .
	lint-imports --no-logo --no-cache
	mypy

TARGET ?= runtime
image: ## build the image TARGET (runtime, runtime-cuda, mlflow) with docker, podman or buildah; docs/images.md names its FLAGS
	docker/build.sh $(TARGET) $(FLAGS)

COMPILE := $(BIN)/uv pip compile --quiet --generate-hashes --no-annotate --no-header
lock: .venv/installed ## compile the locks anew: requirements.lock, and from it what the images hold
	$(COMPILE) --extra dev pyproject.toml --output-file requirements.lock
	$(COMPILE) --config-file docker/uv.toml --constraint requirements.lock --extra train --extra data \
		pyproject.toml docker/requirements.in --output-file docker/requirements.lock
	$(COMPILE) --constraint requirements.lock docker/mlflow.in --output-file docker/mlflow.lock
	$(COMPILE) docker/build.in --output-file docker/build.lock

clean: ## remove what the pipeline wrote (DVC's cache stays)
	rm -rf data models results dvc_plots
