# Two commands for a new clone: `make fit` sets everything up and trains a separator, `make test` checks it all.
PYTHON ?= python3
VENV ?= .venv
# Further options of `make fit`, such as FIT="--epochs 10 --output runs/short".
FIT ?=
BIN := $(VENV)/bin
# Bulk separation has an environment of its own: Apache Beam wants older libraries than the rest.
BULK_VENV ?= .venv-bulk

.PHONY: install fit test lint install-bulk test-bulk docs

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

fit: install
	$(BIN)/python -m training.fit $(FIT)

test: install
	$(BIN)/python -m pytest -n 2 --dist loadgroup

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site, into site/.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

install-bulk: $(BULK_VENV)/.installed

$(BULK_VENV)/.installed: pyproject.toml constraints-bulk.txt
	$(PYTHON) -m venv $(BULK_VENV)
	$(BULK_VENV)/bin/pip install --quiet -e '.[bulk]' 'apache-beam[dask]' pytest pytest-timeout hypothesis psutil \
		-c constraints-bulk.txt
	touch $@

test-bulk: install-bulk
	$(BULK_VENV)/bin/python -m pytest tests/bulk
