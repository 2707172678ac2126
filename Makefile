# Two commands for a new clone: `make fit` sets everything up and trains a separator, `make test` checks it all.
PYTHON ?= python3
VENV ?= .venv
# Further options of `make fit`, such as FIT="--epochs 10 --output runs/short".
FIT ?=
BIN := $(VENV)/bin

.PHONY: install fit test lint

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
