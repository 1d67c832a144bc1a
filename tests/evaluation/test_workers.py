"""Work in processes: in order, with errors in their places, and with deaths survived."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from codectool.evaluation.workers import AHEAD, ONE_THREAD, WorkerDiedError, Workers


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(2) as some:
        yield some


def work(number: int) -> int:
    if number == 3:
        raise ValueError("not three")
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * number


def threads(_: int) -> list[str | None]:
    return [os.environ.get(name) for name in ONE_THREAD]


def test_each_task_gets_its_outcome_and_a_death_costs_one_task(workers: Workers) -> None:
    found = list(workers.run(work, range(9)))
    assert [task for task, _ in found] == list(range(9))
    for task, outcome in found:
        if task == 3:
            assert isinstance(outcome, ValueError)
        elif task == 5:
            assert isinstance(outcome, WorkerDiedError)
        else:
            assert outcome == 10 * task


def test_processes_have_one_thread_and_this_one_keeps_its_own(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = list(workers.run(threads, range(2), jobs=1))
    assert [outcome for _, outcome in found] == [["1"] * len(ONE_THREAD)] * 2
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_no_tasks_no_processes() -> None:
    with Workers(2) as some:
        assert list(some.run(work, [])) == []
        assert some._pool is None


def test_tasks_are_asked_for_as_they_are_needed(workers: Workers, tmp_path: Path) -> None:
    asked = 0

    def tasks() -> Iterator[int]:
        nonlocal asked
        for number in (0, 1, 2, 4) * 10:
            asked += 1
            yield number

    results = workers.run(work, tasks())
    next(results)
    assert asked <= AHEAD * workers.jobs + 1 < 40
    results.close()
