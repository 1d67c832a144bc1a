"""Tasks on all cores, in processes of one thread each.

Judges are other people's compiled code: a clip that kills one must cost that clip and no more.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from codectool.errors import CodectoolError

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")
AHEAD = 8  # tasks per process that are handed over at once: results come in order, work need not
# Read by libraries when they are loaded, which is when a process begins.
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerDiedError(CodectoolError):
    """The process that worked on a task was killed, or killed itself."""


class Workers:
    """Processes that wait for tasks. A context manager.

    Args:
        jobs: how many.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def run(
        self, function: Callable[[Task], Outcome], tasks: Iterable[Task], jobs: int | None = None
    ) -> Iterator[tuple[Task, Outcome | Exception]]:
        """Each task with what ``function`` made of it, or raised, in the order of the tasks.

        Args:
            function: something that a process can import.
            tasks: one after another; few of them are asked for ahead.
            jobs: at most so many at once.
        """
        with _one_thread_each():
            if jobs is None or jobs >= self.jobs:
                yield from self._run(function, iter(tasks))
            else:
                with Workers(jobs) as fewer:
                    yield from fewer.run(function, tasks)

    def _run(
        self, function: Callable[[Task], Outcome], tasks: Iterator[Task]
    ) -> Iterator[tuple[Task, Outcome | Exception]]:
        waiting: deque[tuple[Task, Future[Outcome]]] = deque()
        try:
            while True:
                for task in islice(tasks, AHEAD * self.jobs - len(waiting)):
                    waiting.append((task, self._submit(function, task)))
                if not waiting:
                    return
                task, future = waiting.popleft()
                try:
                    yield task, future.result()
                except BrokenProcessPool:
                    # nobody says which of them it was: each once more, alone
                    suspects = [task, *(other for other, _ in waiting)]
                    waiting.clear()
                    for suspect in suspects:
                        yield suspect, self._alone(function, suspect)
                except Exception as error:
                    yield task, error
        finally:
            for _, future in waiting:
                future.cancel()

    def _alone(self, function: Callable[[Task], Outcome], task: Task) -> Outcome | Exception:
        self._close()
        try:
            return self._submit(function, task).result()
        except BrokenProcessPool:
            self._close()
            return WorkerDiedError("the process that worked on it died; is it out of memory?")
        except Exception as error:
            return error

    def _submit(self, function: Callable[[Task], Outcome], task: Task) -> Future[Outcome]:
        if self._pool is None:
            # not forked: this process may have threads of its own by now
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.jobs, context)
        try:
            return self._pool.submit(function, task)
        except BrokenProcessPool as error:
            failed: Future[Outcome] = Future()
            failed.set_exception(error)
            return failed

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that begin meanwhile use one thread; there is one for each core."""
    before: dict[str, Any] = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
