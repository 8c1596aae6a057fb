# People and CI use the same commands. Each of them builds .venv first if needed.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# One thread a process: two torch threads beside any other load collapse.
export OMP_NUM_THREADS := 1
export RAY_AUTH_MODE ?= token
DEMO := results/.demo

.PHONY: help install check format test demo clean

help:
	@echo "make demo    simulate data, search, train on Ray, blend (minutes)"
	@echo "make test    all tests but the slow and the gpu tier"
	@echo "make check   format, lint, types, import arrows, documentation"
	@echo "make format  put the format right"
	@echo "make clean   remove what make made, studies excepted"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "hms_ray needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e '.[dev]'
	touch $@

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit/test_arrows.py tests/unit/test_docs.py

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Files of tests on two cores; those of Ray, which takes both, one after the other.
test: $(INSTALLED)
	$(BIN)/pytest -m "not ray and not slow and not gpu" -n 2 --dist loadfile --durations=10
	$(BIN)/pytest -m "ray and not slow and not gpu" --durations=10

# A sweep that was stopped goes on where it was: the data is simulated once, and
# every finished fold is in the store below results/.
demo: $(INSTALLED) $(DEMO)/train.csv
	$(BIN)/hms-ray check $(DEMO)
	$(BIN)/hms-ray oracle $(DEMO)
	$(BIN)/hms-ray sweep search_spaces/demo.yaml --data $(DEMO) --study demo
	$(BIN)/hms-ray blend demo
	$(BIN)/hms-ray oracle $(DEMO) --study demo
	@echo "Look at it: $(BIN)/tensorboard --logdir results"

$(DEMO)/train.csv: | $(INSTALLED)
	$(BIN)/hms-ray simulate --out $(DEMO) --patients 150 --seed 0

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
