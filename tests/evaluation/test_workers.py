"""Workers return results in order, with exceptions, and survive crashes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import pytest

from codectool.evaluation.workers import (
    QUEUE_PER_WORKER,
    THREAD_VARIABLES,
    WorkerDiedError,
    Workers,
)


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


def tasks(numbers: Iterable[int]) -> Iterator[tuple[int, Callable[[], int]]]:
    return ((number, partial(work, number)) for number in numbers)


def threads() -> list[str | None]:
    return [os.environ.get(name) for name in THREAD_VARIABLES]


def test_workers_return_results_in_order_and_survive_a_crash(workers: Workers) -> None:
    found = list(workers.run(tasks(range(9))))
    assert [task for task, _ in found] == list(range(9))
    for task, result in found:
        if task == 3:
            assert isinstance(result, ValueError)
        elif task == 5:
            assert isinstance(result, WorkerDiedError)
        else:
            assert result == 10 * task


def test_workers_use_one_thread_and_restore_the_environment(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = list(workers.run([(1, threads), (2, threads)], jobs=1))
    assert [result for _, result in found] == [["1"] * len(THREAD_VARIABLES)] * 2
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_workers_without_tasks_start_no_process() -> None:
    with Workers(2) as some:
        assert list(some.run([])) == []
        assert some._pool is None


def test_workers_consume_tasks_lazily(workers: Workers) -> None:
    consumed = 0

    def numbers() -> Iterator[int]:
        nonlocal consumed
        for number in (0, 1, 2, 4) * 10:
            consumed += 1
            yield number

    results = workers.run(tasks(numbers()))
    next(results)
    assert consumed <= QUEUE_PER_WORKER * workers.jobs + 1 < 40
    results.close()
