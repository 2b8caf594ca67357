# On a fresh machine with Python 3.11 or later and make, every target does all its set-up.
PYTHON ?= python3
BIN := .venv/bin
# Without its bytecode each of the many processes of a test would compile torch anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-trainings lint bench docs clean

demo: .venv/ready
	$(BIN)/trickbag demo --out runs/demo

# One thread per process: three test workers share two cores, since some tests wait for processes of their own.
test: export OMP_NUM_THREADS := 1
test: .venv/ready
	$(BIN)/python -m pytest -n 3 --dist worksteal

# Whole trainings, none of whose tests may depend on how a processor rounds. To compute as another one:
# ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=2 make test-trainings
# But for compiled ones: what torch's compiler writes needs vector units.
# In four parts: PART=2 runs one of them alone. Two workers share two cores, unless each computes on both.
TRAININGS_1 := engine
TRAININGS_2 := runs/test_run.py tricks/test_boxes.py studies/test_sharing.py
TRAININGS_3 := runs/test_ranks.py
TRAININGS_4 := studies/test_study.py
PART ?= 1 2 3 4
test-trainings: export OMP_NUM_THREADS ?= 1
test-trainings: .venv/ready
	$(BIN)/python -m pytest -n $(if $(filter 2,$(OMP_NUM_THREADS)),1,2) --dist worksteal \
		$(addprefix tests/,$(foreach part,$(PART),$(TRAININGS_$(part)))) --ignore tests/engine/test_compile.py

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
