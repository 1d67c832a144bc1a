"""Two readers agree on mutated files with correct checksums; `make fuzz-container` tries more."""

from __future__ import annotations

from collections import Counter

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
