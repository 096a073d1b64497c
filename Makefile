# Everything here also works without make: pip install ".[all]", mlworkbench demo, pytest.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long lint types notebooks benchmark readme

demo: .venv/installed
	$(BIN)/mlworkbench demo

test: lint types notebooks
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-long: .venv/installed
	$(BIN)/python -m pytest -m long

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/python .ci/readme.py --check

types: .venv/installed
	$(BIN)/mypy

notebooks: .venv/installed
	$(BIN)/nbdev-test --n-workers 2 --skip-folder-re '^(runs|explore)$$'

benchmark: .venv/installed
	for file in benchmarks/*.py; do $(BIN)/python $$file; done

readme: .venv/installed
	$(BIN)/python .ci/readme.py

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	touch $@
