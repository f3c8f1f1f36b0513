# Every recurring job has one command; `make help` lists them.
VENV    ?= .venv
PYTHON  ?= python3
PROFILE ?=
DATA    ?= auto
OUT     ?= reproduction

BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install reproduce ablations test lint format types bench clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo
	@echo "  variables: VENV=$(VENV)  PYTHON=$(PYTHON)  PROFILE=smoke|quick|paper  DATA=auto|synthetic|FILE.npz  OUT=$(OUT)"

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

install: $(STAMP) ## make the virtual environment (done by the others when needed)

reproduce: $(STAMP) ## train every run of the profile, then draw every table, figure and the report
	$(BIN)/python -m repro reproduce --data '$(DATA)' --out '$(OUT)' $(if $(PROFILE),--profile $(PROFILE))

ablations: $(STAMP) ## run and draw every ablation of the profile beside it, then the report again
	$(BIN)/python -m repro ablate all --data '$(DATA)' --out '$(OUT)' $(if $(PROFILE),--profile $(PROFILE))
	$(BIN)/python -m repro report --out '$(OUT)' $(if $(PROFILE),--profile $(PROFILE))

test: $(STAMP) ## prove it: lint, types, then every test (about 10 minutes on 2 cores)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --dist worksteal

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

clean: ## remove caches and build leftovers (keeps runs and the environment)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -exec rm -rf {} +
