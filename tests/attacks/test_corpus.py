"""Inputs of the fuzzers, among them all that they found; `make fuzz` tries more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "corpus"
INPUTS = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_input_raises_only_errors_of_codectool(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_corpus_is_small_and_complete() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)
    assert sum(path.stat().st_size for path in INPUTS) < 300_000


def test_fuzzing_without_atheris_says_what_is_missing() -> None:
    program = (
        "import runpy, sys\n"
        "sys.modules['atheris'] = None\n"
        "sys.argv = ['fuzz']\n"
        "runpy.run_module('tests.fuzz', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "fuzzing needs atheris" in done.stderr
    assert "Traceback" not in done.stderr
