"""Assignment of files to batches."""

from __future__ import annotations

import random
from pathlib import Path

from codectool.pipeline.jobs import Job
from codectool.pipeline.plan import Batch, MeasuredFile, make_batches


def measured(name: str, seconds: float, channels: int = 1, single: bool = False) -> MeasuredFile:
    return MeasuredFile(Job(Path(name), Path(name), name, name), 0, 0, 0, seconds, channels, single)


def names(batches: list[Batch]) -> list[str]:
    """Return the names of each batch; `!` marks a single file."""
    joined = [" ".join(file.job.source_name for file in batch.files) for batch in batches]
    return [name + "!" * batch.single for name, batch in zip(joined, batches, strict=True)]


def test_make_batches_fills_batches_from_the_longest_file() -> None:
    files = [measured("a", 3), measured("b", 12), measured("c", 7), measured("d", 3)]
    files += [measured("stereo", 4, 2), measured("unknown", 0, single=True), measured("e", 0)]
    assert names(make_batches(files, 10)) == ["b!", "unknown!", "stereo", "c a", "d e"]


def test_make_batches_does_not_depend_on_the_order_of_files() -> None:
    rng = random.Random(0)
    files = [measured(f"{n:02}", rng.choice([1, 2, 2.5]), rng.choice([1, 2])) for n in range(50)]
    plan = make_batches(files, 7)
    for _ in range(5):
        rng.shuffle(files)
        assert make_batches(files, 7) == plan


def test_make_batches_respects_the_limit_and_keeps_all_files() -> None:
    rng = random.Random(1)
    files = [measured(str(n), rng.uniform(0, 6)) for n in range(200)]
    for threads in (1, 2, 16):
        batches = make_batches(files, 10, threads)
        assert sorted(n for b in batches for n in map(id, b.files)) == sorted(map(id, files))
        assert all(sum(file.cost for file in batch.files) <= 10 for batch in batches)


def test_make_batches_gives_work_to_all_threads() -> None:
    files = [measured(str(n), 1) for n in range(16)]
    assert len(make_batches(files, 100, 1, 4)) == 1
    assert len(make_batches(files, 100, 4, 4)) == 16
    assert len(make_batches(files, 100, 4)) == 4
    assert len(make_batches(files[:3], 100, 4)) == 3
    assert make_batches([], 100, 4) == []


def test_make_batches_divides_the_work_equally() -> None:
    rng = random.Random(2)
    files = [measured(str(n), rng.uniform(2, 6)) for n in range(100)]
    costs = [sum(file.cost for file in batch.files) for batch in make_batches(files, 120, 2)]
    assert len(costs) == 4
    assert max(costs) - min(costs) < 6
