# `make run` starts the relay, `make test` passes the tests; both make what they need in .venv.
# ARGS goes to the program: make run ARGS="--port 9000", make test ARGS="-k lifecycle".
# For those who change the project (CONTRIBUTING.md): make lint, docs, dist, lock.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

run: $(VENV)/relay.stamp
	@$(BIN)/python relay.py $(ARGS)

test: $(VENV)/test.stamp
	@$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/test,stand-ins,lint.stamp
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(VENV)/docs.stamp  # into build/docs
	@$(BIN)/python docs/pages.py
	@$(BIN)/zensical build --strict --clean >build/docs.log 2>&1 || { cat build/docs.log; exit 1; }

dist: $(VENV)/release.stamp  # the sdist, and from it the wheel, into dist/
	@rm -rf dist
	@$(BIN)/python -m build --quiet
	@$(BIN)/python -m twine check --strict dist/*

lock: $(VENV)/release.stamp  # after a change of dependencies: uv.lock, and requirements.txt from it
	@$(BIN)/uv lock --quiet $(ARGS)
	@$(BIN)/uv export --quiet --frozen --extra deployment --no-hashes --no-emit-project \
	    --no-annotate --output-file requirements.txt

$(VENV)/%.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL) '.[$*]'
	@touch '$@'

.PHONY: run test lint docs dist lock
.SECONDARY:
