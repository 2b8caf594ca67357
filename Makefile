# On a fresh machine with Python 3.11 or later and make, every target does all its set-up.
PYTHON ?= python3
BIN := .venv/bin
# Without its bytecode each of the many processes of a test would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint bench docs clean

demo: .venv/ready
	$(BIN)/trickbag demo --out runs/demo

# One thread per process: four test workers share two cores, since some tests wait for processes of their own.
# No test may depend on how a processor rounds. To compute as another one: ATEN_CPU_CAPABILITY=default make test
test: WORKERS ?= -n 4
test: export OMP_NUM_THREADS ?= 1
test: .venv/ready
	$(BIN)/python -m pytest $(WORKERS) --dist worksteal

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready
	$(BIN)/python -m benchmarks

docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'The site is in build/site. To read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000'

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trickbag needs Python 3.11 or later: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@
