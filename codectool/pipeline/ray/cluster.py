"""Ray itself: starting or joining it, and what its machines have room for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from codectool.errors import UsageError

OBJECT_STORE_BYTES = 100 << 20  # only names and numbers go through it, no audio


@dataclass(frozen=True)
class Machine:
    """What a machine has to offer, as Ray counts it."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Placement:
    """How many workers there are to be, and what each of them asks for.

    Attributes:
        workers: processes with a codec each.
        cpus: of a worker, which are the threads of its model.
        gpus: of a worker.
        device: where its codec runs.
    """

    workers: int
    cpus: int
    gpus: int
    device: str


def import_ray() -> ModuleType:
    """The package.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "`--engine ray` needs the package ray: run `pip install 'codectool[ray]'`"
        ) from error
    return ray


@contextmanager
def connected(address: str | None, cpus: int) -> Iterator[ModuleType]:
    """Ray, ready to be used; a connection that was there before is used and stays.

    Args:
        address: of a cluster, as `ray.init` takes it; None starts one on this machine, which goes
            when the context is left.
        cpus: that a cluster on this machine may use.

    Raises:
        UsageError: the package is missing, or there is no such cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        with _held_back():
            _begin(ray, address, cpus)
        yield ray
    finally:
        ray.shutdown()


def _begin(ray: ModuleType, address: str | None, cpus: int) -> None:
    """Start Ray or join it, as quietly as it can."""
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address is not None:
            ray.init(address, **quiet)
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            "local",  # whatever RAY_ADDRESS says
            num_cpus=cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"Ray ({address or 'local'}): cannot be used: {reason}") from error


@contextmanager
def _held_back() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait: Ray crashes if it is stopped while it starts.

    It also puts a handler of its own in place, which goes again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in numbers
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
    for late in received:
        signal.raise_signal(late)


def machines_of(ray: ModuleType) -> list[Machine]:
    """All machines of the cluster that are up."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in resources]


def place(
    machines: Sequence[Machine], device: str, most_threads: int | None, workers: int | None
) -> Placement:
    """One worker per GPU, if there are any and they are not declined; else as CPUs have room.

    Args:
        machines: of the cluster.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        most_threads: threads that the model gains from on a CPU; None are all of a machine.
        workers: how many there are to be; None as many as there is room for. What there is no
            room for waits until there is.

    Raises:
        UsageError: there is no such device, or no machine has a CPU to offer.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"`--device {device}` with Ray, which chooses itself: auto, cpu or cuda")
    gpus = sum(machine.gpus for machine in machines)
    if device == "cuda" and not gpus:
        raise UsageError("device cuda: no machine of the Ray cluster has a GPU to offer")
    if gpus and device != "cpu":
        return Placement(workers or gpus, 1, 1, "cuda")
    cpus = [machine.cpus for machine in machines if machine.cpus]
    if not cpus:
        raise UsageError("no machine of the Ray cluster has a CPU to offer")
    threads = min(most_threads or min(cpus), max(cpus))
    while threads > 1 and workers and _room(cpus, threads) < workers:
        threads -= 1
    return Placement(workers or _room(cpus, threads), threads, 0, "cpu")


def _room(cpus: Sequence[int], threads: int) -> int:
    """Workers of so many threads that machines with so many CPUs can hold."""
    return sum(count // threads for count in cpus)
