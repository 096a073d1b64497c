# Everything here also works without make: pip install ".[all]", mlworkbench demo, pytest.
PYTHON ?= python3
BIN := .venv/bin

SINCE ?= HEAD
# two processes with two threads each wait for each other in loops on two cores
test check test-long notebooks: export OMP_NUM_THREADS = 1

.PHONY: demo test check test-long lint types notebooks benchmark readme docs

demo: .venv/installed
	$(BIN)/mlworkbench demo

test: .venv/installed
	$(MAKE) --jobs 3 --output-sync=target lint types notebooks
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/installed # in a minute: lint, types, laws, and the tests of what was changed (SINCE=main: on a branch)
	$(MAKE) --jobs 2 --output-sync=target lint types
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not long and not system' tests/test_house.py $$($(BIN)/python .ci/changed.py $(SINCE))

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

docs: .venv/installed # the documentation site: open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all,dev]"
	touch $@
