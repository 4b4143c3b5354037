# One command for each thing a person does with this tree; `make` alone lists them.
#
#   PYTHON=/path/to/python3   the Python of .venv (3.11 or newer); default python3
#   BENCH='--only cached-one'   with `make bench`: its options
#   SOAK='--minutes 5'       with `make soak`: its options
#   FUZZ='--minutes 5'       with `make fuzz`: how long each of its two parts takes
#   LOAD_TIME=5m LOAD_USERS=40 LOAD_SHAPE=constant   with `make load` (docs/load.md)
#   UPGRADE=1                 with `make lock`: take newer versions instead of keeping the locked

PYTHON ?= python3
UV ?= uv
IN_VENV := .venv/bin/
COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-header $(if $(UPGRADE),--upgrade)

# The recipes change one shared .venv: they run one after the other, also under `make -j`.
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help run install install-dev install-fuzz test check bench load soak fuzz lock clean

help:
	@echo 'make run     start the node with its own stores, data in ./var (IDNODE_DATA)'
	@echo 'make test    run the tests'
	@echo 'make check   format, lint, types, and which package may import which'
	@echo 'make bench   measure the node beside nginx and others (docs/benchmarks.md)'
	@echo 'make load    a minute of factories, partners and registrars, who check every answer'
	@echo 'make soak    half an hour at 80 % of the top rate, with writes (docs/benchmarks.md)'
	@echo 'make fuzz    an hour of made-up messages, for the native codec and its doors (Linux on x86-64)'
	@echo 'make lock    compute the requirements*.lock files anew (needs uv)'
	@echo 'make clean   remove .venv; the data folder stays'

install:
	@PYTHON='$(PYTHON)' sh .ci/install run

install-fuzz: install
	@PYTHON='$(PYTHON)' sh .ci/install fuzz

install-dev: install
	@PYTHON='$(PYTHON)' sh .ci/install dev

# exec: signals reach the node itself, and its own exit code is what make sees.
run: install
	@exec $(IN_VENV)idnode up

test: install-dev
	@sh .ci/test

check: install-dev
	@$(IN_VENV)ruff format --check .
	@$(IN_VENV)ruff check .
	@$(IN_VENV)mypy
	@$(IN_VENV)lint-imports

bench: install-dev
	@exec $(IN_VENV)python -m loadtest.bench $(BENCH)

# exec: Ctrl-C reaches the program itself, which stops what it has started.
load: install-dev
	@exec $(IN_VENV)python -m loadtest.load

soak: install-dev
	@exec $(IN_VENV)python -m loadtest.soak $(SOAK)

fuzz: install-dev install-fuzz
	@$(IN_VENV)python -m loadtest.fuzz_codec $(FUZZ) tests/data/native/native-capture.jsonl
	@exec $(IN_VENV)python -m tests.fuzz_doors $(FUZZ)

lock:
	@command -v $(UV) >/dev/null || { echo 'make lock needs uv on the PATH' >&2; exit 1; }
	@$(COMPILE) pyproject.toml --group pyproject.toml:build -o requirements.lock >/dev/null
	@$(COMPILE) pyproject.toml --group pyproject.toml:dev -c requirements.lock \
	  -o requirements-dev.lock >/dev/null
	@$(COMPILE) --group pyproject.toml:fuzz -o requirements-fuzz.lock >/dev/null
	@echo 'Written: requirements.lock, requirements-dev.lock, requirements-fuzz.lock'

clean:
	@rm -rf .venv
