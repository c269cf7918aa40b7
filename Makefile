# `make run` starts the relay, `make test` passes the tests; both make what they need in .venv.
# ARGS goes to the program: make run ARGS="--port 9000", make test ARGS="-k lifecycle".

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

run: $(VENV)/run.stamp
	@$(BIN)/python relay.py $(ARGS)

test: $(VENV)/test.stamp
	@$(BIN)/python -m pytest $(ARGS)

$(VENV)/run.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.x")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/test.stamp: $(VENV)/run.stamp pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

.PHONY: run test
