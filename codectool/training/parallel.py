"""One run in several processes, each with its part of every batch.

``torchrun`` starts the processes and connects them by environment variables. All of them compute
the same step: gradients are averaged, statistics are summed (`nn.distributed`), and decisions that
depend on a clock or a signal are made together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from codectool.nn.distributed import world_size

BUCKET_SIZE = 1 << 23  # gradients that are exchanged together: 32 MB
TIMEOUT = timedelta(hours=1)  # while the main process validates, the others wait


def is_launched() -> bool:
    """Return whether ``torchrun`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """Return the number of this process on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_main_process() -> bool:
    """Return whether this process writes files and messages, also before `process_group`."""
    return int(os.environ.get("RANK", "0")) == 0


def rank() -> int:
    """Return the number of this process among all; 0 is the main process."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes inside the context: by NCCL on CUDA, by Gloo elsewhere.

    Nothing happens if there are none, or if this process has joined them already.
    """
    if not is_launched() or world_size() > 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # NCCL takes its tensors from there
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes.

    Gradients are exchanged in large buckets after the whole backward pass, which does not depend on
    how often a network was used in a step.
    """
    if world_size() == 1:
        return
    bucket: list[Tensor] = []
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:  # buckets must be the same in all processes
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        if sum(grad.numel() for grad in bucket) >= BUCKET_SIZE:
            _average(bucket)
            bucket = []
    if bucket:
        _average(bucket)


def _average(tensors: list[Tensor]) -> None:
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def largest(*values: float) -> list[float]:
    """Return the largest of each value over the processes."""
    if world_size() == 1:
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    together = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return [float(value) for value in together]


def agree(value: float) -> bool:
    """Return whether all processes have the same value."""
    high, low = largest(value, -value)
    return high == -low


def broadcast_parameters(model: nn.Module) -> None:
    """Copy the tensors of the main process to all processes."""
    if world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)
