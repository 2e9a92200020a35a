# Every target sets up what it needs; nothing outside this folder is touched, but for Debian's packages that
# `make test` installs when it runs as root (it says which).

PYTHON  ?= python3
VENV    ?= .venv
BIN     := $(VENV)/bin
LOCKENV := .venv-lock
PEERS   := dcmtk orthanc redis-server postgresql libgdcm-tools gcc libc6-dev
# pytest arguments; most tests wait more than they compute. For example: make test PYTEST="-x tests/models"
PYTEST  ?= -n 3 --dist worksteal

# Some images forbid byte code; then each of the many short processes that the tests start compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE

# Twice quiet: errors only, not each index or wheel folder that a machine's own pip settings name in vain.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

# Universal: one lock for every platform and Python >= 3.11. No index address gets into it.
COMPILE := UV_PYTHON_DOWNLOADS=never UV_CUSTOM_COMPILE_COMMAND="make lock" $(LOCKENV)/bin/uv pip compile -q $(UPGRADE) \
    --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-containers check bench peers lock clean
.DELETE_ON_ERROR:

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.run ## the whole loop on this machine with sample data; leaves nothing running
	@$(BIN)/dicomferry demo

test: $(VENV)/.dev peers check ## format, lint, types, import rules, dead code, then every test that is not long
	tests/support/run-pytest $(BIN)/python $(PYTEST)

test-long: $(VENV)/.dev peers ## the tests marked long
	@# pytest answers 5 when it selected nothing: no failure as long as no test is marked long.
	tests/support/run-pytest $(BIN)/python -m long $(PYTEST) || { code=$$?; [ $$code = 5 ] && echo "no test is marked long"; }

test-containers: $(VENV)/.dev peers ## the compose file, started on an engine of its own (root; docker.io, docker-compose, debootstrap)
	$(BIN)/python -m pytest -n 0 -m containers tests/containers $(PYTEST)

check: $(VENV)/.dev ## format, lint, types, import rules, dead code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

# As root on Debian the peers that the tests talk to are installed; elsewhere the missing ones are named, and the
# tests that need them skip by name (with CI=true they fail).
peers:
	@tests/support/install-peers $(PEERS)

bench: $(VENV)/.dev ## speed against DCMTK, Orthanc and others (BENCH="send far walk --rounds 5")
	PYTHONPATH=tests $(BIN)/python -m benchmarks $(BENCH)

lock: $(LOCKENV)/bin/uv ## resolve the lock files again (UPGRADE=--upgrade for newer versions)
	$(COMPILE) --extra postgres pyproject.toml -o requirements.lock
	sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | $(COMPILE) - -o requirements-build.lock
	$(COMPILE) --extra postgres --extra transcode --extra dev -c requirements.lock -c requirements-build.lock \
	    pyproject.toml -o requirements-dev.lock
	$(COMPILE) --extra postgres --extra transcode -c requirements-dev.lock pyproject.toml -o requirements-image.lock

clean: ## remove the environments, caches and builds
	rm -rf $(VENV) $(LOCKENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find cli daemon workers models tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# --- environments -----------------------------------------------------------------------------------------------
# Two stamps in one environment: what running needs, and over it what developing needs. The locks agree with each
# other (the second is resolved under the first), so either order does. They are made again only when a lock or
# pyproject.toml changes. The project itself is installed editable: its code needs no second install.

DEBIAN := apt-get install -y git make python3-venv ca-certificates

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(DEBIAN)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "dicomferry needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "$(DEBIAN)"; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.run: requirements.lock requirements-build.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing what dicomferry needs (requirements.lock) into $(VENV)"
	@$(PIP) install --require-hashes -r requirements.lock -r requirements-build.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@echo "installing what its checks and tests need (requirements-dev.lock) into $(VENV)"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(LOCKENV)/bin/uv:
	@$(PYTHON) -m venv $(LOCKENV)
	@$(LOCKENV)/bin/python -m pip --disable-pip-version-check -q install uv
