"""Batches in threads of this process."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

from codectool.loading import sharing_threads
from codectool.pipeline import steps
from codectool.pipeline.engine import Books, fitting_seconds
from codectool.pipeline.plan import Batch
from codectool.pipeline.report import Result, Timing
from codectool.pipeline.steps import Member
from codectool.pipeline.threads import Stages, Threads
from codectool.pipeline.work import Work


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
