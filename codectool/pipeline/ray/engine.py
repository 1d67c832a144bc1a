"""Run batches on the machines of a Ray cluster with a shared file system.

The calling process finds, measures and plans, and only it writes journal and report; workers read
audio and write outputs. A worker that dies is replaced and its batches are repeated, which is safe
because outputs get their names only when they are complete.

These are plain actors instead of Ray Data because the unit of work is a planned batch, its results
are files instead of rows, and the journal knows across runs what is done.
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
from codectool.pipeline.executor import Engine, EngineFactory, Ledger, default_batches
from codectool.pipeline.operations import AnyOperation
from codectool.pipeline.plan import Batch
from codectool.pipeline.ray.cluster import Placement, connected, machines_of, place
from codectool.pipeline.ray.worker import BATCHES_PER_WORKER, FinishedBatch, OperationSpec, Worker
from codectool.pipeline.report import Result, Timing

MAX_FAILURES = 3  # worker deaths on the same batch, or consecutive ones while loading
KILL_GRACE_S = 0.3  # a process may outlive `ray.kill` by less


def on_ray(
    address: str | None = None, workers: int | None = None, device: str = "auto"
) -> EngineFactory:
    """Return an engine for `encode_tree` and similar functions: the machines of a Ray cluster.

    Args:
        address: cluster to join: ``"auto"``, ``"HOST:PORT"`` or ``"ray://HOST:PORT"``; None starts
            Ray on this machine for the duration of the run.
        workers: number of processes with a codec each; None for one per GPU, or as many as fit on
            the CPUs.
        device: ``"auto"`` for GPUs if the cluster has any and CPUs otherwise, ``"cpu"`` or
            ``"cuda"``. The device of the caller's codec is not used.

    Raises:
        UsageError: when the run starts, if Ray is missing, cannot be reached, or lacks the device.
    """

    @contextmanager
    def start(operation: AnyOperation) -> Iterator[Engine]:
        with connected(address, cores()) as ray:
            threads = operation.codec.model.cpu_threads
            yield RayEngine(ray, operation, place(machines_of(ray), device, threads, workers))

    return start


@dataclass
class _Task:
    """A batch, and the number of workers that died while they held it."""

    number: int
    batch: Batch
    failures: int = 0


@dataclass(eq=False)
class _WorkerHandle:
    """A worker process, whether its codec is loaded, and the tasks that it holds."""

    actor: Any
    ready: bool = False
    tasks: list[_Task] = field(default_factory=list)

    def accepts(self, task: _Task, max_held: int) -> bool:
        """Return whether to give the worker a task while it holds at most ``max_held`` others.

        A task that has killed a worker runs without others, so that only the failing file is
        blamed next time.
        """
        if not self.ready or len(self.tasks) > max_held:
            return False
        return not self.tasks or not any(other.failures for other in (task, *self.tasks))


@dataclass(frozen=True)
class _Call:
    """A pending call of a worker: `load` if there is no task, else `prepare` or `finish`."""

    worker: _WorkerHandle
    task: _Task | None = None
    is_prepare: bool = False


class RayEngine:
    """An `Engine` of many workers.

    Args:
        ray: the connected Ray module.
        operation: the operation.
        placement: number and resources of the workers.
    """

    def __init__(self, ray: ModuleType, operation: AnyOperation, placement: Placement) -> None:
        self.width = placement.workers
        self.batch_seconds, self.batches_per_thread = default_batches(operation, placement.device)
        self.timing = Timing()
        self._ray = ray
        self._spec = OperationSpec.of(operation)
        self._device = placement.device
        self._actor_class = ray.remote(Worker).options(
            num_cpus=placement.cpus,
            num_gpus=placement.gpus,
            max_restarts=0,  # `_replace` restarts, and counts failures
            max_concurrency=BATCHES_PER_WORKER,
        )
        self._waiting: deque[_Task] = deque()
        self._workers: list[_WorkerHandle] = []
        self._calls: dict[Any, _Call] = {}  # by Ray's reference to the return value
        self._num_tasks = 0
        self._load_failures = 0

    def run(self, batches: Sequence[Batch], ledger: Ledger) -> Generator[Result, None, None]:
        """Yield the results of all files, a batch at a time."""
        self._ledger = ledger
        self._waiting.extend(self._task(batch) for batch in batches)
        try:
            for _ in range(min(self.width, len(batches))):
                self._spawn()
            while self._waiting or any(worker.tasks for worker in self._workers):
                self._assign()
                (reference,), _ = self._ray.wait(list(self._calls), num_returns=1)
                yield from self._handle_return(reference)
        finally:
            self._shutdown()

    def _task(self, batch: Batch, failures: int = 0) -> _Task:
        self._num_tasks += 1
        return _Task(self._num_tasks, batch, failures)

    def _spawn(self) -> None:
        actor = self._actor_class.remote(self._spec, self._device, self._ledger.rules)
        worker = _WorkerHandle(actor)
        self._workers.append(worker)
        self._calls[actor.load.remote()] = _Call(worker)

    def _assign(self) -> None:
        """Give waiting tasks to workers; each gets its first before any gets its second."""
        for max_held in range(BATCHES_PER_WORKER):
            for worker in self._workers:
                if self._waiting and worker.accepts(self._waiting[0], max_held):
                    task = self._waiting.popleft()
                    worker.tasks.append(task)
                    batch, known = _absolute(task.batch), self._ledger.known(task.batch)
                    reference = worker.actor.prepare.remote(task.number, batch, known)
                    self._calls[reference] = _Call(worker, task, is_prepare=True)

    def _handle_return(self, reference: Any) -> Iterator[Result]:
        """React to a call that returned or failed."""
        call = self._calls.pop(reference)
        errors = self._ray.exceptions
        try:
            value = self._ray.get(reference)
        except errors.RayTaskError as error:  # every worker would meet it, such as a full disk
            cause = error.cause
            raise (cause if isinstance(cause, BaseException) else error) from None
        except errors.RayError:
            yield from self._replace(call.worker)
            return
        worker, task = call.worker, call.task
        if task is None:
            worker.ready = True
            self._load_failures = 0
        elif call.is_prepare:
            self._ledger.journal.begin(value)
            self._calls[worker.actor.finish.remote(task.number)] = _Call(worker, task)
        else:
            worker.tasks.remove(task)
            yield from self._finish(task, value)

    def _finish(self, task: _Task, finished: FinishedBatch) -> Iterator[Result]:
        self.timing.add(finished.timing)
        for file, (entry, result) in zip(task.batch.files, finished.outcomes, strict=True):
            self._ledger.finish(entry, result)
            yield replace(result, source=file.job.source, target=file.job.target)

    def _replace(self, worker: _WorkerHandle) -> Iterator[Result]:
        """Replace a worker that died, and repeat its tasks.

        Raises:
            CodectoolError: no worker is left, because all die while they load.
        """
        self._calls = {ref: call for ref, call in self._calls.items() if call.worker is not worker}
        self._workers.remove(worker)
        self._ray.kill(worker.actor)  # it may be alive but unreachable
        self._load_failures += not worker.ready
        for task in worker.tasks:
            yield from self._retry(task)
        if self._load_failures < MAX_FAILURES:
            self._spawn()
        elif not self._workers:
            raise CodectoolError(
                "Ray: the workers die while they load the codec; see Ray's logs, or reduce memory "
                "use with fewer workers (`--ray-actors`)"
            )

    def _retry(self, task: _Task) -> Iterator[Result]:
        task.failures += 1
        files = task.batch.files
        if task.failures < MAX_FAILURES:
            self._waiting.appendleft(task)
        elif len(files) > 1:
            # file by file; the file that kills one more worker is the failing file
            singles = [Batch((file,), task.batch.single) for file in files]
            self._waiting.extendleft(self._task(batch, MAX_FAILURES - 1) for batch in singles)
        else:
            job = files[0].job
            error = CodectoolError(f"its worker died, and {MAX_FAILURES - 1} others before it")
            yield Result.failure(job.source, job.target, error)

    def _shutdown(self) -> None:
        """Kill all workers."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        if any(worker.tasks for worker in self._workers):
            time.sleep(KILL_GRACE_S)
        self._workers.clear()
        self._calls.clear()
        self._waiting.clear()


def _absolute(batch: Batch) -> Batch:
    """Return the batch with absolute paths, for processes that run elsewhere."""
    files = []
    for file in batch.files:
        source, target = (
            Path(os.path.abspath(path)) for path in (file.job.source, file.job.target)
        )
        files.append(replace(file, job=replace(file.job, source=source, target=target)))
    return replace(batch, files=tuple(files))
