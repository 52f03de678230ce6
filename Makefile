# Two commands set everything up on a fresh machine: `make repro` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Each stage is a process: without bytecode each would compile thousands of modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install repro in-git test test-fast check image lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: .venv/installed ## install the locked packages and maskcast into .venv; TORCH=cpu: 2 GB instead of 7
	@$(ACTIVATE)

ACTIVATE = test -n "$$VIRTUAL_ENV" || echo 'For `maskcast` and `dvc` in this shell, or a new one: source .venv/bin/activate'

# An environment of uv has no pip, nor has one that Debian began to make before python3-venv was installed.
.venv/installed: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: .venv has" \
		"$$($(BIN)/python --version), and maskcast needs 3.11 or later: rm -r .venv && make install PYTHON=python3.11" >&2; \
		exit 2; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep -o '^uv==[0-9.]*' docker/build.lock)
	$(INSTALL_$(TORCH))
	$(BIN)/uv pip install $(QUIET) --no-deps --no-build-isolation --editable .
	echo $(TORCH) > $@

# `TORCH=cpu` takes the CPU builds of the locked versions, and leaves CUDA's 5 GB out; all else is as locked.
# What was installed is kept when the lock changes.
TORCH ?= $(or $(shell cat .venv/installed 2>/dev/null),locked)
QUIET := --quiet --python $(BIN)/python
INSTALL_locked = $(BIN)/uv pip sync $(QUIET) --require-hashes requirements.lock
INSTALL_cpu = awk '/^[a-z]/ { cuda = /^(torch|torchvision|triton)==|^(cuda|nvidia)-/ } !cuda' requirements.lock \
	> .venv/cpu.lock && $(BIN)/uv pip sync $(QUIET) --require-hashes .venv/cpu.lock \
	&& $(BIN)/uv pip install $(QUIET) --no-deps --torch-backend cpu $$(grep -oE '^torch(vision)?==[^ ]+' requirements.lock)
ifeq ($(filter $(TORCH),locked cpu),)
$(error TORCH=$(TORCH): write TORCH=cpu for the CPU builds of torch, or leave it out)
endif

repro: in-git .venv/installed ## run the whole pipeline on the embedded default, show its scores and what comes next
	dvc repro
	@maskcast summary
	@$(ACTIVATE)

# DVC keeps a project's history in Git; a ZIP download has none.
in-git:
	@git rev-parse --git-dir > /dev/null 2>&1 || { echo "error: this folder is no Git repository, which DVC needs" \
		"(a ZIP download is none). Install Git if you have none, then: git init && make repro" >&2; exit 2; }

test-fast: .venv/installed ## pass the unit and contract tests, which need no server, in minutes
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/unit tests/contract

test: .venv/installed ## pass all tests
	tests/with_docker.sh pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

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
