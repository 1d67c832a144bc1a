"""Two readers agree on mutated files with correct checksums; `make fuzz-container` tries more."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from codectool.container import sections
from tests.container.hcd_samples import SAMPLES
from tests.fuzz.mutants import compare, mutant, split


@pytest.mark.parametrize("seed", range(4))
def test_readers_agree_on_mutants(seed: int) -> None:
    outcomes = Counter(compare(mutant(seed, n), through_pipe=n % 2 == 1) for n in range(1000))
    assert outcomes["accepted"] > 150  # or the mutants do not get far
    assert outcomes["refused"] > 150


@pytest.mark.parametrize("name", SAMPLES)
def test_unchanged_parts_build_a_valid_file(name: str) -> None:
    assert compare(split(SAMPLES[name].data).build()) == "accepted"


def test_a_reader_with_another_limit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "MAX_SECTIONS", 100)
    with pytest.raises(AssertionError, match="refuses what the document allows: .*100 sections"):
        [compare(mutant(0, number)) for number in range(10_000)]


def test_a_run_continues_where_it_was_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.run_mutants", "--jobs", "1", "--mutants", "1200"]
    command += ["--results", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "1200 of 1200 mutants" in first.stderr
    results = tmp_path / "mutants-0.jsonl"
    lines = results.read_text().splitlines(keepends=True)
    results.write_text(lines[0] + lines[1][:20])  # killed while it wrote
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert again.stderr == first.stderr
    assert sorted(results.read_text().splitlines()) == sorted("".join(lines).splitlines())
