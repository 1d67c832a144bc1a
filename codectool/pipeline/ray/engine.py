"""Batches on the machines of a Ray cluster that see the same files.

The caller finds, measures and plans, and it alone writes journal and report; workers read audio and
write outputs. A worker that dies is replaced, and what it held is done again: outputs take their
names only when they are whole, so a repetition replaces a file by the same one.

Plain actors rather than Ray Data: the unit of work is a planned batch, what it makes are files and
not rows, and what is done already is the journal's to know, across runs.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from codectool.cores import cores
from codectool.errors import CodectoolError
from codectool.pipeline.executor import Books, Engine, Start, fitting_seconds
from codectool.pipeline.operations import Work
from codectool.pipeline.plan import Batch
from codectool.pipeline.ray.cluster import Placement, connected, machines_of, place
from codectool.pipeline.ray.worker import BATCHES, Finished, Recipe, Worker
from codectool.pipeline.report import Result, Timing, failure

MOST_DEATHS = 3  # of workers over the same batch, or one after the other while they load
LAST_BREATH = 0.3  # in seconds: a process outlives the call that kills it by less


def on_ray(address: str | None = None, workers: int | None = None, device: str = "auto") -> Start:
    """An engine for `encode_tree` and the like: the machines of a Ray cluster.

    Args:
        address: of the cluster: ``"auto"``, ``"HOST:PORT"``, ``"ray://HOST:PORT"``; None starts Ray
            on this machine for the time of the run.
        workers: processes with a codec each; None is one per GPU, or as many as the CPUs have room
            for.
        device: ``"auto"`` are GPUs if the cluster has any, otherwise CPUs; ``"cpu"``, ``"cuda"``.
            That of the caller's codec does not matter.

    Raises:
        UsageError: when the run begins: Ray is missing, cannot be reached, or lacks the device.
    """

    @contextmanager
    def start(work: Work[Any, Any]) -> Iterator[Engine]:
        with connected(address, cores()) as ray:
            threads = work.codec.model.cpu_threads
            yield RayEngine(ray, work, place(machines_of(ray), device, threads, workers))

    return start


@dataclass
class _Task:
    """A batch, and how many workers have died over it."""

    number: int
    batch: Batch
    deaths: int = 0


@dataclass(eq=False)
class _Hired:
    """A worker, whether it has loaded its codec, and what it is at work on."""

    handle: Any
    ready: bool = False
    tasks: list[_Task] = field(default_factory=list)

    def takes(self, task: _Task, held: int) -> bool:
        """Whether to give it a task when it should hold no more than so many others.

        What a worker has died over goes alone, so that only the guilty is blamed next time.
        """
        if not self.ready or len(self.tasks) > held:
            return False
        return not self.tasks or not any(other.deaths for other in (task, *self.tasks))


@dataclass(frozen=True)
class _Call:
    """What a worker was asked to do: to load, without a task; else a step of the task."""

    worker: _Hired
    task: _Task | None = None
    prepares: bool = False


class RayEngine:
    """An `Engine` of many workers.

    Args:
        ray: the package, connected.
        work: what is done.
        placement: on what.
    """

    def __init__(self, ray: ModuleType, work: Work[Any, Any], placement: Placement) -> None:
        self.width = placement.workers
        self.batch_seconds = fitting_seconds(placement.device)
        self.timing = Timing()
        self._ray = ray
        self._recipe = Recipe.of(work)
        self._device = placement.device
        self._actor = ray.remote(Worker).options(
            num_cpus=placement.cpus,
            num_gpus=placement.gpus,
            max_restarts=0,  # one that dies is replaced here, where the deaths are counted
            max_concurrency=BATCHES,
        )
        self._waiting: deque[_Task] = deque()
        self._workers: list[_Hired] = []
        self._calls: dict[Any, _Call] = {}  # by reference to what they will return
        self._numbers = 0
        self._deaths_in_loading = 0

    def run(self, batches: Sequence[Batch], books: Books) -> Generator[Result, None, None]:
        """Results of all files, a batch at a time."""
        self._books = books
        self._waiting.extend(self._task(batch) for batch in batches)
        try:
            for _ in range(min(self.width, len(batches))):
                self._hire()
            while self._waiting or any(worker.tasks for worker in self._workers):
                self._hand_out()
                (reference,), _ = self._ray.wait(list(self._calls), num_returns=1)
                yield from self._answer(reference)
        finally:
            self._dismiss()

    def _task(self, batch: Batch, deaths: int = 0) -> _Task:
        self._numbers += 1
        return _Task(self._numbers, batch, deaths)

    def _hire(self) -> None:
        books = self._books
        handle = self._actor.remote(self._recipe, self._device, books.settings, books.overwrite)
        worker = _Hired(handle)
        self._workers.append(worker)
        self._calls[handle.load.remote()] = _Call(worker)

    def _hand_out(self) -> None:
        """Give each worker a batch before any gets its second."""
        for held in range(BATCHES):
            for worker in self._workers:
                if self._waiting and worker.takes(self._waiting[0], held):
                    self._give(worker, self._waiting.popleft())

    def _give(self, worker: _Hired, task: _Task) -> None:
        worker.tasks.append(task)
        known = self._books.known(task.batch)
        reference = worker.handle.prepare.remote(task.number, _absolute(task.batch), known)
        self._calls[reference] = _Call(worker, task, prepares=True)

    def _answer(self, reference: Any) -> Iterator[Result]:
        """Do what has to be done now that a call has returned, or never will."""
        call = self._calls.pop(reference)
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError as error:  # what the next one would meet as well: a full disk
            cause = error.cause
            raise (cause if isinstance(cause, BaseException) else error) from None
        except errors.RayError:
            yield from self._bury(call.worker)
            return
        worker, task = call.worker, call.task
        if task is None:
            worker.ready = True
            self._deaths_in_loading = 0
        elif call.prepares:
            self._books.begin(value)
            self._calls[worker.handle.finish.remote(task.number)] = _Call(worker, task)
        else:
            worker.tasks.remove(task)
            yield from self._take_in(task, value)

    def _take_in(self, task: _Task, finished: Finished) -> Iterator[Result]:
        self.timing.add(finished.timing)
        for file, (entry, result) in zip(task.batch.members, finished.outcomes, strict=True):
            self._books.finish(entry, result)
            yield replace(result, source=file.job.source, target=file.job.target)

    def _bury(self, worker: _Hired) -> Iterator[Result]:
        """Let someone else do what a worker held; where that has happened too often, no one.

        Raises:
            CodectoolError: none is left, for all die before they have done anything.
        """
        self._calls = {ref: call for ref, call in self._calls.items() if call.worker is not worker}
        self._workers.remove(worker)
        self._ray.kill(worker.handle)  # it may only be out of reach
        self._deaths_in_loading += not worker.ready
        for task in worker.tasks:
            yield from self._try_again(task)
        if self._deaths_in_loading < MOST_DEATHS:
            self._hire()
        elif not self._workers:
            raise CodectoolError(
                "Ray: the workers die while they load the codec; see Ray's logs, or whether there "
                "is memory for so many (`--ray-actors`)"
            )

    def _try_again(self, task: _Task) -> Iterator[Result]:
        task.deaths += 1
        members = task.batch.members
        if task.deaths < MOST_DEATHS:
            self._waiting.appendleft(task)
        elif len(members) > 1:
            last = MOST_DEATHS - 1  # the file that kills one more is the guilty one
            singles = [Batch((file,), task.batch.alone) for file in members]
            self._waiting.extendleft(self._task(single, last) for single in singles)
        else:
            error = CodectoolError(f"its worker died, as {MOST_DEATHS - 1} others did before")
            job = members[0].job
            yield failure(job.source, job.target, error)

    def _dismiss(self) -> None:
        """End all workers, wherever they are."""
        for worker in self._workers:
            self._ray.kill(worker.handle)
        if any(worker.tasks for worker in self._workers):
            time.sleep(LAST_BREATH)
        self._workers.clear()
        self._calls.clear()
        self._waiting.clear()


def _absolute(batch: Batch) -> Batch:
    """The same with paths that do not depend on where a program runs."""
    members = []
    for file in batch.members:
        source, target = (
            Path(os.path.abspath(path)) for path in (file.job.source, file.job.target)
        )
        members.append(replace(file, job=replace(file.job, source=source, target=target)))
    return replace(batch, members=tuple(members))


def _whole(path: Path) -> Path:
    return Path(os.path.abspath(path))
