# The same commands for people and CI. Each builds .venv first if needed.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# One thread per process: two torch threads become very slow beside any other load.
export OMP_NUM_THREADS := 1
export RAY_AUTH_MODE ?= token
DEMO := results/.demo

.PHONY: help install check format test demo pictures clean

help:
	@echo "make demo    simulate data, search, train on Ray, blend (minutes)"
	@echo "make pictures"
	@echo "             the README's pictures, from the results of make demo"
	@echo "make test    all tests except the tiers slow and gpu"
	@echo "make check   format, lint, types, import arrows, documentation"
	@echo "make format  fix the format"
	@echo "make clean   remove everything that make created, except studies"

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

# Test files run two at a time; tests of Ray, which uses both cores, one after the other.
test: $(INSTALLED)
	$(BIN)/pytest -m "not ray and not slow and not gpu" -n 2 --dist loadfile --durations=10
	$(BIN)/pytest -m "ray and not slow and not gpu" --durations=10

# A stopped demo resumes: the data is simulated once, and every finished fold is in the
# fold store below results/.
demo: $(INSTALLED) $(DEMO)/train.csv
	$(BIN)/hms-ray check $(DEMO)
	$(BIN)/hms-ray oracle $(DEMO)
	$(BIN)/hms-ray sweep demo --data $(DEMO) --study demo
	$(BIN)/hms-ray blend demo
	$(BIN)/hms-ray oracle $(DEMO) --study demo
	@echo "See the curves: $(BIN)/hms-ray board demo"

$(DEMO)/train.csv: | $(INSTALLED)
	$(BIN)/hms-ray simulate --out $(DEMO) --patients 150 --seed 0

# Needs the results of make demo, Chromium and the extra report.
pictures: $(INSTALLED)
	$(BIN)/python -m tests.readme_pictures

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
