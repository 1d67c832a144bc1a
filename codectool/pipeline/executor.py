"""Many batches at once: readers ahead of the model, writers behind it, each in threads of its own.

    readers --prepare--> a few batches --compute--> a few batches --store--> results
                                     model threads          writers

Reading, resampling and writing leave the interpreter to others, and so does the model. The number
of batches that are held at once is bounded on both sides.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from codectool.loading import sharing_threads
from codectool.pipeline import steps
from codectool.pipeline.journal import Entry, Journal
from codectool.pipeline.operations import Work
from codectool.pipeline.plan import Batch
from codectool.pipeline.report import Result, Timing
from codectool.pipeline.steps import Member

Task = TypeVar("Task")
Loaded = TypeVar("Loaded")
Outcome = TypeVar("Outcome")
WAITING_WRITES = 2  # batches per model thread that may wait to be written


class _Stopped(SystemExit):
    """Ends a thread from outside; `threading` says nothing about this one."""


@dataclass(frozen=True)
class Stages(Generic[Task, Loaded, Outcome]):
    """What is done with each task, by three kinds of threads.

    Attributes:
        prepare: by readers.
        compute: by the threads of the model; changes what it is given.
        store: by writers.
    """

    prepare: Callable[[Task], Loaded]
    compute: Callable[[Loaded], None]
    store: Callable[[Loaded], Iterator[Outcome]]


class Threads(Generic[Task, Loaded, Outcome]):
    """Takes tasks through all stages.

    Args:
        stages: what is done.
        model_threads: tasks that are computed at once.
        workers: tasks that are prepared at once, and that are stored at once.

    Attributes:
        timing: where the time of the model's threads went; complete when all is done.
    """

    def __init__(
        self, stages: Stages[Task, Loaded, Outcome], model_threads: int, workers: int
    ) -> None:
        self.timing = Timing()
        self._stages = stages
        self._readers = ThreadPoolExecutor(workers, "reader")
        self._writers = ThreadPoolExecutor(workers, "writer")
        self._ahead = workers + model_threads
        self._turn = threading.Lock()
        self._stopping = False
        self._outcomes: SimpleQueue[Outcome | _Ended] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run_model, name=f"model-{number}", daemon=True)
            for number in range(model_threads)
        ]

    def run(self, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        """Outcomes of all tasks, each as soon as it is there.

        The caller's thread only waits, so that Ctrl-C is answered at once. However the iteration
        ends, no thread works on when it has.
        """
        self._loaded = self._prefetch(deque(tasks))
        try:
            for thread in self._threads:
                thread.start()
            running = len(self._threads)
            while running:
                outcome = self._outcomes.get()
                if not isinstance(outcome, _Ended):
                    yield outcome
                elif outcome.error is not None:
                    raise outcome.error
                else:
                    self.timing.add(outcome.timing)
                    running -= 1
        finally:
            self._stop()

    def _prefetch(self, tasks: deque[Task]) -> Iterator[Loaded]:
        waiting: deque[Future[Loaded]] = deque()
        while tasks or waiting:
            while tasks and len(waiting) < self._ahead:
                waiting.append(self._readers.submit(self._stages.prepare, tasks.popleft()))
            yield waiting.popleft().result()

    def _run_model(self) -> None:
        timing = Timing()
        try:
            stores: deque[Future[None]] = deque()
            clock = time.perf_counter()
            while (loaded := self._next()) is not None:
                timing.reading += -clock + (clock := time.perf_counter())
                self._stages.compute(loaded)
                timing.model += -clock + (clock := time.perf_counter())
                stores.append(self._writers.submit(self._store, loaded))
                del loaded
                while len(stores) > WAITING_WRITES or (stores and stores[0].done()):
                    stores.popleft().result()
                timing.writing += -clock + (clock := time.perf_counter())
            timing.reading += -clock + (clock := time.perf_counter())
            while stores:
                stores.popleft().result()
            timing.writing += time.perf_counter() - clock
        except BaseException as error:
            self._outcomes.put(_Ended(timing, error))
        else:
            self._outcomes.put(_Ended(timing))

    def _next(self) -> Loaded | None:
        with self._turn:
            return next(self._loaded, None)

    def _store(self, loaded: Loaded) -> None:
        for outcome in self._stages.store(loaded):
            self._outcomes.put(outcome)
            if self._stopping:
                return

    def _stop(self) -> None:
        """End all threads; those of the model in the middle of their work, if they still have any.

        They may have minutes of it before them, and what they leave behind is cleared up on their
        way out.
        """
        self._stopping = True
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._writers.shutdown(wait=False, cancel_futures=True)
        for thread in self._threads:
            if thread.is_alive():
                number = ctypes.c_ulong(thread.ident or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(_Stopped))
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._readers.shutdown()
        self._writers.shutdown()


@dataclass(frozen=True)
class _Ended:
    """The last word of a thread of the model."""

    timing: Timing
    error: BaseException | None = None


CPU_BATCH_SECONDS = 40.0
DEVICE_BATCH_SECONDS = 400.0


@dataclass(frozen=True)
class Books:
    """The journal, and what makes an output the right one.

    Attributes:
        journal: of the folder of the outputs.
        settings: hash of all that the outputs depend on beside the inputs.
        overwrite: make all outputs anew, and replace files that are not ours.
    """

    journal: Journal
    settings: str
    overwrite: bool

    def known(self, batch: Batch) -> dict[str, Entry]:
        """What the journal says of the outputs of a batch, by name."""
        names = [file.job.target_name for file in batch.members]
        entries = [(name, self.journal.find(name)) for name in names]
        return {name: entry for name, entry in entries if entry is not None}

    def begin(self, entries: Iterable[Entry]) -> None:
        """Write down that these outputs are about to be made; before any of them is."""
        missing = list(entries)
        if missing:
            self.journal.begin(missing)

    def finish(self, entry: Entry, result: Result) -> None:
        """Write down an output that is there."""
        if result.status == "done":
            self.journal.finish(entry)


class Engine(Protocol):
    """Does batches.

    Attributes:
        width: batches that are worked on at once.
        batch_seconds: most seconds of audio that should go through one model together.
        timing: where the time of the models went; complete when all is done.
    """

    @property
    def width(self) -> int: ...  # noqa: D102

    @property
    def batch_seconds(self) -> float: ...  # noqa: D102

    @property
    def timing(self) -> Timing: ...  # noqa: D102

    def run(self, batches: Sequence[Batch], books: Books) -> Generator[Result, None, None]:
        """Results of all files, each once. However the iteration ends, nobody works on then."""


# Makes an engine ready for some work; when it is left, all that it needed is gone.
Start = Callable[[Work[Any, Any]], AbstractContextManager[Engine]]


def fitting_seconds(device: str) -> float:
    """Seconds of audio in a batch that keep a device of this type busy."""
    return CPU_BATCH_SECONDS if device == "cpu" else DEVICE_BATCH_SECONDS


class LocalEngine:
    """An `Engine` of one process and one codec.

    Args:
        work: what is done.
        model_threads: most batches that go through the model at once.
        workers: threads that read, and as many that write.
    """

    def __init__(self, work: Work[Any, Any], model_threads: int, workers: int) -> None:
        self.width = model_threads
        self.batch_seconds = fitting_seconds(work.codec.device.type)
        self.timing = Timing()
        self._work = work
        self._workers = workers

    def run(self, batches: Sequence[Batch], books: Books) -> Generator[Result, None, None]:
        """Results of all files, each as soon as it is there."""
        width = max(1, min(self.width, len(batches)))
        threads = Threads(self._stages(books), width, self._workers)
        with sharing_threads(self._work.codec, width):
            yield from threads.run(batches)
        self.timing = threads.timing

    def _stages(self, books: Books) -> Stages[Batch, list[Member], Result]:
        """The three steps with the journal between them."""
        work = self._work

        def prepare(batch: Batch) -> list[Member]:
            known = books.known(batch)
            members = steps.prepare(work, batch, known, books.settings, books.overwrite)
            books.begin(member.entry for member in members if member.result is None)
            return members

        def store(members: list[Member]) -> Iterator[Result]:
            for member in steps.store(work, members):
                assert member.result is not None
                books.finish(member.entry, member.result)
                yield member.result

        return Stages(prepare, lambda members: steps.compute(work, members), store)
