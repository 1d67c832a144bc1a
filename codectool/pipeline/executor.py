"""Run batches in threads: readers ahead of the model, writers behind it.

    readers --prepare--> a few batches --compute--> a few batches --store--> results
                                     model threads          writers

Reading, resampling, the model and writing release the interpreter lock. The number of batches in
memory is bounded on both sides of the model.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from queue import SimpleQueue
from typing import Protocol

from codectool.allocator import keep_freed_memory, release_freed_memory
from codectool.pipeline import steps
from codectool.pipeline.journal import Entry, Journal
from codectool.pipeline.operations import AnyOperation
from codectool.pipeline.plan import Batch
from codectool.pipeline.report import Result, Timing
from codectool.pipeline.steps import BatchItem, Rules

CPU_BATCH_SECONDS = 40.0
LARGE_CPU_BATCH_SECONDS = 80.0  # for models that compute a batch faster than its files
DEVICE_BATCH_SECONDS = 400.0
BATCHES_PER_THREAD = 4  # at least, so that all threads finish at about the same time
MAX_PENDING_WRITES = 2  # batches per model thread that may wait for a writer


class Engine(Protocol):
    """Runs batches of one operation.

    Attributes:
        width: number of batches computed at once.
        batch_seconds: recommended maximum of audio in a batch.
        batches_per_thread: recommended minimum.
        timing: time of the model threads; complete at the end of `run`.
    """

    width: int
    batch_seconds: float
    batches_per_thread: int
    timing: Timing

    def run(self, batches: Sequence[Batch], ledger: Ledger) -> Generator[Result, None, None]:
        """Yield one result per file; all work ends with the iteration, even an interrupted one."""


# Prepares an engine for an operation; leaving the context frees everything that the engine needs.
EngineFactory = Callable[[AnyOperation], AbstractContextManager[Engine]]


@dataclass(frozen=True)
class Ledger:
    """The journal, and what decides whether an output is current.

    Attributes:
        journal: journal of the output folder.
        rules: which outputs to make.
    """

    journal: Journal
    rules: Rules

    def known(self, batch: Batch) -> dict[str, Entry]:
        """Return the journal entries of the outputs of a batch, by name."""
        entries = (self.journal.find(file.job.target_name) for file in batch.files)
        return {entry.target: entry for entry in entries if entry is not None}

    def finish(self, entry: Entry, result: Result) -> None:
        """Record an output that was made, or whose entry changed."""
        if entry.bytes is not None and entry != self.journal.find(entry.target):
            self.journal.finish(entry)


class RunStopped(BaseException):
    """Raised in a model thread of a stopped run; not an `Exception`: the file did not fail."""


@dataclass(frozen=True)
class _ThreadEnd:
    """The last message of a model thread."""

    timing: Timing
    error: BaseException | None = None


def default_batches(operation: AnyOperation, device: str) -> tuple[float, int]:
    """Return the seconds of audio in a batch that suit a device, and batches per thread."""
    if device != "cpu":
        return DEVICE_BATCH_SECONDS, BATCHES_PER_THREAD
    if operation.faster_in_batches:
        return LARGE_CPU_BATCH_SECONDS, 1
    return CPU_BATCH_SECONDS, BATCHES_PER_THREAD


class LocalEngine:
    """An `Engine` in threads of this process; runs once.

    Args:
        operation: the operation.
        model_threads: maximum number of batches computed at once.
        workers: number of reader threads, and of writer threads.
    """

    def __init__(self, operation: AnyOperation, model_threads: int, workers: int) -> None:
        on_cpu = operation.device_type == "cpu"
        self._long_batches = on_cpu and operation.faster_in_batches
        if on_cpu:
            keep_freed_memory()
        self.width = model_threads
        self.batch_seconds, self.batches_per_thread = default_batches(
            operation, operation.device_type
        )
        self.timing = Timing()
        self._operation = operation
        self._workers = workers
        self._readers = ThreadPoolExecutor(workers, "reader")
        self._writers = ThreadPoolExecutor(workers, "writer")
        self._stopped = threading.Event()
        self._next_lock = threading.Lock()
        self._messages: SimpleQueue[Result | _ThreadEnd] = SimpleQueue()

    def run(self, batches: Sequence[Batch], ledger: Ledger) -> Generator[Result, None, None]:
        """Yield the results of all files, each as soon as its output is complete.

        The calling thread only waits, so that Ctrl-C reaches it at once. A stopped run ends when
        each model thread has finished its batch, or its chunk of a single file.
        """
        self._ledger = ledger
        width = max(1, min(self.width, len(batches)))
        self._prepared = self._prefetch(deque(batches), self._workers + width)
        threads = [
            threading.Thread(target=self._run_model, name=f"model-{number}", daemon=True)
            for number in range(width)
        ]
        with self._operation.sharing_threads(width):
            try:
                if width > 1:
                    self._warm_up()
                for thread in threads:
                    thread.start()
                running = width
                while running:
                    message = self._messages.get()
                    if isinstance(message, Result):
                        yield message
                    elif message.error is not None:
                        raise message.error
                    else:
                        self.timing.add(message.timing)
                        running -= 1
            finally:
                self._end(threads)

    def _warm_up(self) -> None:
        """Prepare the model for several threads, unless the first batch has nothing to compute."""
        first = next(self._prepared)
        if any(item.result is None for item in first):
            self._operation.warm_up()
        self._prepared = chain([first], self._prepared)

    def _prefetch(self, batches: deque[Batch], ahead: int) -> Iterator[list[BatchItem]]:
        waiting: deque[Future[list[BatchItem]]] = deque()
        while batches or waiting:
            while batches and len(waiting) < ahead:
                waiting.append(self._readers.submit(self._prepare, batches.popleft()))
            yield waiting.popleft().result()

    def _prepare(self, batch: Batch) -> list[BatchItem]:
        ledger = self._ledger
        items = steps.prepare(self._operation, batch, ledger.known(batch), ledger.rules)
        ledger.journal.begin(item.entry for item in items if item.result is None)
        return items

    def _run_model(self) -> None:
        timing = Timing()
        try:
            writes: deque[Future[None]] = deque()
            clock = time.perf_counter()
            while (items := self._next()) is not None:
                timing.reading += -clock + (clock := time.perf_counter())
                steps.compute(self._operation, items, self._check_stopped)
                timing.model += -clock + (clock := time.perf_counter())
                writes.append(self._writers.submit(self._store, items))
                del items
                if self._long_batches:
                    release_freed_memory()  # or gaps add up from batch to batch
                while len(writes) > MAX_PENDING_WRITES or (writes and writes[0].done()):
                    writes.popleft().result()
                timing.writing += -clock + (clock := time.perf_counter())
            timing.reading += -clock + (clock := time.perf_counter())
            while writes:
                writes.popleft().result()
            timing.writing += time.perf_counter() - clock
        except BaseException as error:
            self._messages.put(_ThreadEnd(timing, error))
        else:
            self._messages.put(_ThreadEnd(timing))

    def _next(self) -> list[BatchItem] | None:
        with self._next_lock:
            self._check_stopped()
            return next(self._prepared, None)

    def _store(self, items: list[BatchItem]) -> None:
        for item in steps.store(self._operation, items):
            assert item.result is not None
            self._ledger.finish(item.entry, item.result)
            self._messages.put(item.result)
            self._check_stopped()

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise RunStopped

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        """Stop and join all threads."""
        self._stopped.set()
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._writers.shutdown(wait=False, cancel_futures=True)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        self._readers.shutdown()
        self._writers.shutdown()
