# Everything runs in .venv, which `make install` sets up once per change of pyproject.toml.

PYTHON ?= python3
BIN := .venv/bin
CLIP := assets/speech_espeak.flac

.PHONY: help install test lint types format demo bench clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed  ## set up .venv with codectool and what its tests need

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

test: install  ## run the tests
	$(BIN)/python -m pytest

lint: install types  ## check style and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: install  ## check types
	$(BIN)/mypy

format: install  ## put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

demo: install  ## encode a bundled clip, show the file, decode it
	@mkdir -p demo
	$(BIN)/codectool encode $(CLIP) demo/speech.hcd --tag "title=codectool demo" --overwrite
	$(BIN)/codectool info demo/speech.hcd
	$(BIN)/codectool verify demo/speech.hcd
	$(BIN)/codectool decode demo/speech.hcd demo/speech.wav --overwrite
	@ls -l $(CLIP) demo/speech.hcd demo/speech.wav

bench: install  ## print the figures of the README and of docs/performance.md (half an hour)
	$(BIN)/python -m benchmarks.bitpack
	$(BIN)/python -m benchmarks.start
	$(BIN)/python -m benchmarks.sizes
	$(BIN)/python -m benchmarks.speed --clips 16 --json bench.json

clean:  ## remove what make has made
	rm -rf .venv demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
