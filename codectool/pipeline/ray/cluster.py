"""Start or join a Ray cluster, and decide which workers fit into it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from codectool.errors import UsageError

OBJECT_STORE_BYTES = 100 << 20  # holds names and numbers only, no audio


@dataclass(frozen=True)
class Machine:
    """Resources of a machine, as Ray counts them."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Placement:
    """Number of workers, and the resources of each.

    Attributes:
        workers: number of processes with a codec each.
        cpus: CPUs per worker, which are the threads of its model.
        gpus: GPUs per worker.
        device: device of its codec.
    """

    workers: int
    cpus: int
    gpus: int
    device: str


def import_ray() -> ModuleType:
    """Import Ray.

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
    """Yield the connected Ray module; an existing connection is used and kept.

    Args:
        address: cluster to join, as in `ray.init`; None starts one on this machine, which ends
            with the context.
        cpus: CPUs that a cluster on this machine may use.

    Raises:
        UsageError: Ray is not installed, or the cluster cannot be used.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    try:
        with _signals_delayed():
            _initialize(ray, address, cpus)
        yield ray
    finally:
        ray.shutdown()


def _initialize(ray: ModuleType, address: str | None, cpus: int) -> None:
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address is not None:
            ray.init(address, **quiet)
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            "local",  # even if RAY_ADDRESS is set
            num_cpus=cpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"Ray ({address or 'local'}): cannot be used: {reason}") from error


@contextmanager
def _signals_delayed() -> Iterator[None]:
    """Delay SIGINT and SIGTERM, which crash Ray while it starts, and undo its own handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
    for received_number in received:
        signal.raise_signal(received_number)


def machines_of(ray: ModuleType) -> list[Machine]:
    """Return the live machines of the cluster."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Machine(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in resources]


def place(
    machines: Sequence[Machine], device: str, model_threads: int | None, workers: int | None
) -> Placement:
    """Place one worker per GPU if there are any and the device allows it, otherwise on CPUs.

    Args:
        machines: machines of the cluster.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        model_threads: CPU threads that the model can use; None for all of a machine.
        workers: number of workers; None for as many as fit. Workers that do not fit wait.

    Raises:
        UsageError: there is no such device, or no machine has a CPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"`--device {device}`: Ray takes auto, cpu or cuda and chooses the GPUs")
    gpus = sum(machine.gpus for machine in machines)
    if device == "cuda" and not gpus:
        raise UsageError("device cuda: no machine of the Ray cluster has a GPU; use `--device cpu`")
    if gpus and device != "cpu":
        return Placement(workers or gpus, 1, 1, "cuda")
    cpus = [machine.cpus for machine in machines if machine.cpus]
    if not cpus:
        raise UsageError("no machine of the Ray cluster has a CPU; add one to the cluster")
    threads = min(model_threads or min(cpus), max(cpus))
    while threads > 1 and workers and _capacity(cpus, threads) < workers:
        threads -= 1
    return Placement(workers or _capacity(cpus, threads), threads, 0, "cpu")


def _capacity(cpus: Sequence[int], threads: int) -> int:
    """Return how many workers with this many threads fit on the machines."""
    return sum(count // threads for count in cpus)
