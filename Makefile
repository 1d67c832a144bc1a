# Everything runs in .venv, which `make install` creates again when pyproject.toml changes.

PYTHON ?= python3
BIN := .venv/bin
CLIP := assets/speech_espeak.flac

.PHONY: help install test test-fast lint types format reference docs docs-serve dist man demo bench fuzz fuzz-container clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: .venv/.installed  ## create .venv with codectool and everything its tests need

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps Resemblyzer
	touch $@

test: install  ## run all tests, on all cores
	$(BIN)/python -m pytest -n auto --dist loadfile

test-fast: install  ## run the tests that are not marked slow, on all cores
	$(BIN)/python -m pytest -m "not slow" -n auto

lint: install types  ## check style and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: install  ## check types
	$(BIN)/mypy

format: install  ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

reference: install  ## regenerate docs/reference/cli.md and config.md
	COLUMNS=80 $(BIN)/python docs/reference/generate.py

.venv/.docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

docs: .venv/.docs  ## build the documentation site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

docs-serve: .venv/.docs  ## show the documentation site while you edit it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

.venv/.release: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[release]'
	touch $@

dist: .venv/.release  ## build and check wheel and sdist in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/python .ci/check_dist.py dist

MAN_DIR ?= man
man: install  ## write manual pages to MAN_DIR
	$(BIN)/codectool man $(MAN_DIR)

demo: install  ## encode a bundled clip, show its metadata, verify and decode it
	@mkdir -p demo
	$(BIN)/codectool encode $(CLIP) demo/speech.hcd --tag "title=codectool demo" --overwrite
	$(BIN)/codectool info demo/speech.hcd
	$(BIN)/codectool verify demo/speech.hcd
	$(BIN)/codectool decode demo/speech.hcd demo/speech.wav --overwrite
	@ls -l $(CLIP) demo/speech.hcd demo/speech.wav

SECONDS ?= 600
SEED ?= 0
fuzz: install  ## fuzz the readers of untrusted files for SECONDS (needs atheris; see .[fuzz])
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED)

MUTANTS ?= 1000000
fuzz-container: install  ## compare two readers of .hcd files on MUTANTS mutants (10 minutes)
	$(BIN)/python -m tests.fuzz.run_mutants --mutants $(MUTANTS)

bench: install  ## print the tables of docs/design/performance.md (half an hour)
	$(BIN)/python -m benchmarks codecs --clips 16 --json bench.json

clean:  ## remove generated files
	rm -rf .venv demo man .fuzz site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
