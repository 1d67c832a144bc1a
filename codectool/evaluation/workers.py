"""A pool of single-threaded worker processes that survives crashes of its tasks.

Metrics run third-party compiled code: a clip that crashes it costs only that clip.
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
Result = TypeVar("Result")
QUEUE_PER_WORKER = 8  # tasks submitted ahead: results are returned in order, whatever ends first
# Libraries read these when they are loaded, so they must be set before a process starts.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class WorkerDiedError(CodectoolError):
    """The process that ran a task died."""


class Workers:
    """A pool of worker processes; a context manager.

    Args:
        jobs: number of processes.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._shutdown()

    def run(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], jobs: int | None = None
    ) -> Iterator[tuple[Task, Result | Exception]]:
        """Yield each task with its result or exception, in order.

        Args:
            function: a picklable function.
            tasks: consumed lazily, a few tasks ahead of the results.
            jobs: use at most this many processes.
        """
        with _single_threaded_children():
            if jobs is None or jobs >= self.jobs:
                yield from self._run(function, iter(tasks))
            else:
                with Workers(jobs) as fewer:
                    yield from fewer.run(function, tasks)

    def _run(
        self, function: Callable[[Task], Result], tasks: Iterator[Task]
    ) -> Iterator[tuple[Task, Result | Exception]]:
        pending: deque[tuple[Task, Future[Result]]] = deque()
        try:
            while True:
                for task in islice(tasks, QUEUE_PER_WORKER * self.jobs - len(pending)):
                    pending.append((task, self._submit(function, task)))
                if not pending:
                    return
                task, future = pending.popleft()
                try:
                    yield task, future.result()
                except BrokenProcessPool:
                    # the failing task is unknown: repeat each of them in a pool of its own
                    suspects = [task, *(other for other, _ in pending)]
                    pending.clear()
                    for suspect in suspects:
                        yield suspect, self._run_alone(function, suspect)
                except Exception as error:
                    yield task, error
        finally:
            for _, future in pending:
                future.cancel()

    def _run_alone(self, function: Callable[[Task], Result], task: Task) -> Result | Exception:
        self._shutdown()
        try:
            return self._submit(function, task).result()
        except BrokenProcessPool:
            self._shutdown()
            return WorkerDiedError("the worker process died; it may have run out of memory")
        except Exception as error:
            return error

    def _submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        if self._pool is None:
            # not forked: this process may have threads
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.jobs, context)
        try:
            return self._pool.submit(function, task)
        except BrokenProcessPool as error:
            failed: Future[Result] = Future()
            failed.set_exception(error)
            return failed

    def _shutdown(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Let processes that start meanwhile use one thread each."""
    before: dict[str, Any] = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
