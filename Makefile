# Two commands are the README's: make demo, make test. They need Python 3.11+, make and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BUILT := src/farebox/http/static/built/manifest.json
PORT ?= 8377

.DEFAULT_GOAL := help
.PHONY: help demo serve test lint types bench faults web lock wheel clean

help: ## Show what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(BIN)/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'

$(INSTALLED): requirements.lock pyproject.toml | $(BIN)/uv
	$(BIN)/uv pip install --quiet --require-hashes --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) web ## Run Farebox on real LLM traffic (DETACH=1: print and stop)
	$(BIN)/farebox demo --port $(PORT) $(if $(DETACH),--detach)

serve: $(INSTALLED) web ## Start an empty Farebox and print an owner key
	$(BIN)/farebox serve --port $(PORT)

test: $(INSTALLED) web lint types ## Run the whole suite: lint, types, layers, tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup
	$(BIN)/python -m pytest -n 2 --dist loadgroup --postgres 15 tests/sql tests/flows \
		--ignore-glob='tests/sql/test_server*' --ignore=tests/sql/test_database_open.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED)
	$(BIN)/mypy

bench: $(INSTALLED) ## Measure the hot paths, as ratios in one run
	$(BIN)/python -m bench

faults: $(INSTALLED) ## Kill the server and the database many times and audit what was promised
	$(BIN)/python -m pytest -n 2 -m faults --faults-long tests/faults

web: $(BUILT) ## Build the console's scripts with the Node.js of a wheel

$(BUILT): $(wildcard web/*.json web/*.ts web/src/*) | $(INSTALLED)
	$(BIN)/python web/build.py

lock: | $(BIN)/uv ## Resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --python-version 3.11 --group dev pyproject.toml -o requirements.lock

wheel: $(INSTALLED) web ## Build the wheel, pages included
	$(BIN)/uv build --quiet --wheel --no-build-isolation

clean: ## Remove what was built or installed here
	rm -rf $(VENV) dist build .farebox web/node_modules src/farebox/http/static/built
