"""A pool of single-threaded worker processes that survives crashes of its tasks.

Metrics run third-party compiled code; if it crashes, only the values of that clip are lost.
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
from typing import TypeVar

from codectool.errors import CodectoolError

Key = TypeVar("Key")
Result = TypeVar("Result")
QUEUE_PER_WORKER = 8  # tasks submitted ahead, because results are returned in order
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
        self, tasks: Iterable[tuple[Key, Callable[[], Result]]], jobs: int | None = None
    ) -> Iterator[tuple[Key, Result | Exception]]:
        """Run picklable functions and yield the key of each with its result or exception, in order.

        Args:
            tasks: consumed lazily, a few tasks ahead of the results.
            jobs: use at most this many processes.
        """
        with _single_threaded_children():
            if jobs is None or jobs >= self.jobs:
                yield from self._run(iter(tasks))
            else:
                with Workers(jobs) as fewer:
                    yield from fewer.run(tasks)

    def _run(
        self, tasks: Iterator[tuple[Key, Callable[[], Result]]]
    ) -> Iterator[tuple[Key, Result | Exception]]:
        pending: deque[tuple[Key, Callable[[], Result], Future[Result]]] = deque()
        try:
            while True:
                for key, function in islice(tasks, QUEUE_PER_WORKER * self.jobs - len(pending)):
                    pending.append((key, function, self._submit(function)))
                if not pending:
                    return
                result = _wait(pending[0][2])
                if not isinstance(result, BrokenProcessPool):
                    yield pending.popleft()[0], result
                    continue
                # the failing task is unknown: repeat each of them in a pool of its own
                suspects = [(key, function) for key, function, _ in pending]
                pending.clear()
                for key, function in suspects:
                    self._shutdown()
                    result = _wait(self._submit(function))
                    if isinstance(result, BrokenProcessPool):
                        result = WorkerDiedError(
                            "the worker process died; it may have run out of memory"
                        )
                    yield key, result
                self._shutdown()
        finally:
            for *_, future in pending:
                future.cancel()

    def _submit(self, function: Callable[[], Result]) -> Future[Result]:
        if self._pool is None:
            # not forked: this process may have threads
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.jobs, context)
        try:
            return self._pool.submit(function)
        except BrokenProcessPool as error:
            failed: Future[Result] = Future()
            failed.set_exception(error)
            return failed

    def _shutdown(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _wait(future: Future[Result]) -> Result | Exception:
    try:
        return future.result()
    except Exception as error:
        return error


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Limit processes that are started meanwhile to one thread each."""
    before = {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name in THREAD_VARIABLES:
            del os.environ[name]
        os.environ.update(before)
