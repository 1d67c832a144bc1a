"""Which files go through the model together."""

from __future__ import annotations

import random
from pathlib import Path

from codectool.pipeline.jobs import Job
from codectool.pipeline.plan import Batch, Measured, make_batches


def measured(name: str, seconds: float, channels: int = 1, alone: bool = False) -> Measured:
    return Measured(Job(Path(name), Path(name), name, name), 0, 0, seconds, channels, alone)


def names(batches: list[Batch]) -> list[str]:
    marked = [(batch.alone, [file.job.source_name for file in batch.members]) for batch in batches]
    return [" ".join(members) + ("!" if alone else "") for alone, members in marked]


def test_batches_are_filled_from_the_longest_down() -> None:
    files = [measured("a", 3), measured("b", 12), measured("c", 7), measured("d", 3)]
    files += [measured("stereo", 4, 2), measured("unknown", 0, alone=True), measured("e", 0)]
    assert names(make_batches(files, 10)) == ["b!", "unknown!", "stereo", "c a", "d e"]


def test_the_plan_does_not_depend_on_the_order() -> None:
    rng = random.Random(0)
    files = [measured(f"{n:02}", rng.choice([1, 2, 2.5]), rng.choice([1, 2])) for n in range(50)]
    plan = make_batches(files, 7)
    for _ in range(5):
        rng.shuffle(files)
        assert make_batches(files, 7) == plan


def test_no_batch_is_too_long_and_none_is_lost() -> None:
    rng = random.Random(1)
    files = [measured(str(n), rng.uniform(0, 6)) for n in range(200)]
    for threads in (1, 2, 16):
        batches = make_batches(files, 10, threads)
        assert sorted(n for b in batches for n in map(id, b.members)) == sorted(map(id, files))
        assert all(sum(file.cost for file in batch.members) <= 10 for batch in batches)


def test_several_threads_all_have_work() -> None:
    files = [measured(str(n), 1) for n in range(16)]
    assert len(make_batches(files, 100, 1)) == 1
    assert len(make_batches(files, 100, 4)) == 16
