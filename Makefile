# Every target sets up what it needs and reuses it: only Python 3.11+ and make are asked for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Files of tests that run at the same time.
WORKERS ?= 2
# Which of the slow tests: 'slow and not long' leaves out those that take many minutes alone.
SELECT ?= slow
export OMP_NUM_THREADS := 1

.PHONY: demo test test-slow lint bench setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "fedsite needs Python 3.11 or newer; found %s. Next: make PYTHON=/path/to/python3.11" % sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing fedsite and what it needs into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/fedsite demo

test: $(STAMP)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: $(STAMP)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m '$(SELECT)'

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@PYTHONPATH=.typings $(BIN)/lint-imports

bench: $(STAMP)
	@for script in tests/benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	@rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache
