# Every recurring job has one command; `make help` lists them.
VENV    ?= .venv
PYTHON  ?= python3
PROFILE ?=
DATA    ?= auto
DATASET ?= bloodmnist
OUT     ?= reproduction
LOCKED  ?=

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed$(if $(LOCKED),-locked)

.DEFAULT_GOAL := help
.PHONY: help install reproduce ablations check test mutants lint format types bench docs notebook forensics lock clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo
	@echo "  variables: VENV=$(VENV)  PYTHON=$(PYTHON)  PROFILE=smoke|quick|overnight|paper  DATA=auto|synthetic|FILE.npz  DATASET=$(DATASET)  OUT=$(OUT)"
	@echo "             LOCKED=1: the very versions of requirements.lock"

# Byte code is kept, whatever the shell says: without it every process compiles torch anew, which is
# nine of the fifteen seconds until it trains, and the tests start some sixty.
unexport PYTHONDONTWRITEBYTECODE

# One more than cores: tests that wait for other processes leave a core to others.
WORKERS = $(shell $(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)')

CONSTRAINTS := $(if $(LOCKED),-c requirements.lock)

$(STAMP): pyproject.toml $(if $(LOCKED),requirements.lock)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile $(CONSTRAINTS) -e '.[test]'
	@touch $@

install: $(STAMP) ## make the virtual environment (done by the others when needed)

reproduce: $(STAMP) ## train every run of the profile, then draw every table, figure and the report
	$(BIN)/python -m repro reproduce --data '$(DATA)' --dataset '$(DATASET)' --out '$(OUT)' $(if $(PROFILE),--profile $(PROFILE))

ablations: $(STAMP) ## run and draw every ablation of the profile beside it, then the report again
	$(BIN)/python -m repro ablate all --data '$(DATA)' --dataset '$(DATASET)' --out '$(OUT)' $(if $(PROFILE),--profile $(PROFILE))
	$(BIN)/python -m repro report --out '$(OUT)' $(if $(PROFILE),--profile $(PROFILE))

check: $(STAMP) ## before a commit: lint, types, a minute of the tests that the changes reach
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/changed_tests.py

# The type checker uses one core and the tests wait now and then: side by side.
test: $(STAMP) ## prove it: lint, types, every test (11 minutes on 2 slow cores)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy > $(VENV)/mypy.log 2>&1 & types=$$!; \
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal; tests=$$?; \
	wait $$types || { cat $(VENV)/mypy.log; exit 1; }; exit $$tests

mutants: $(STAMP) ## put faults in on purpose, one at a time: which does no test notice?
	$(BIN)/python tools/mutants.py

lint: $(STAMP) ## style and common mistakes
	$(BIN)/ruff check .

format: $(STAMP) ## rewrite to the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(STAMP) ## type checker
	$(BIN)/mypy

bench: $(STAMP) ## every benchmark, beside its peers (installs them)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	for name in accountant tightness secagg dpsgd kernels train scale; do $(BIN)/python -m repro bench $$name --out '$(OUT)' || exit 1; done

forensics: $(STAMP) ## execute Flower before and after the mended noise, beside our code (needs a network)
	$(BIN)/python -m repro forensics --out '$(OUT)'

docs: $(STAMP) ## build the documentation into site/ (every warning is an error)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python tools/api_pages.py
	$(BIN)/mkdocs build --strict --quiet
	@! grep -rl '=====' site/api || { echo 'a table was not rendered' >&2; exit 1; }

notebook: $(STAMP) ## execute notebooks/tour.ipynb again, outputs included
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[notebook]'
	$(BIN)/python tools/notebook.py

lock: $(STAMP) ## write requirements.lock: the exact versions of this environment
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip > requirements.lock.part
	echo '# Written by `make lock`; `make reproduce LOCKED=1` installs these. Every record names its own.' > requirements.lock
	sed 's/+.*//' requirements.lock.part | tr 'A-Z_' 'a-z-' | LC_ALL=C sort -t= -k1,1 >> requirements.lock
	rm requirements.lock.part

clean: ## remove caches and build leftovers (keeps runs and the environment)
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -exec rm -rf {} +
