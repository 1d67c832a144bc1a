"""One run on several processes, each with its part of every batch.

``torchrun`` starts the processes and tells them of each other by environment variables. All of
them compute the same step: gradients are averaged, statistics put together (`nn.ranks`), decisions
that depend on a clock or a signal are taken together.
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

BUCKET_NUMBERS = 1 << 23  # gradients that travel together: 32 MB
PATIENCE = timedelta(hours=1)  # while rank 0 validates, the others wait for it


def launched() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """Number of this process on its machine, which is also that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def first() -> bool:
    """Whether this process is the one that writes and speaks, known before `process_group`."""
    return int(os.environ.get("RANK", "0")) == 0


def rank() -> int:
    """Number of this process among all; 0 is the one that writes."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the other processes, if not done before: over nccl on CUDA, over gloo elsewhere."""
    if not launched() or world_size() > 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # what nccl is given must lie there
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the ranks.

    One exchange after the whole backward pass, in large pieces: it works the same whether a
    network was used once or twice in a step, whole or in parts.
    """
    if world_size() == 1:
        return
    bucket: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:  # the same on all ranks or the exchange would not fit
            parameter.grad = torch.zeros_like(parameter)
        bucket.append(parameter.grad)
        if sum(grad.numel() for grad in bucket) >= BUCKET_NUMBERS:
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
    """Largest of each value over the ranks: what one has seen, all act upon."""
    if world_size() == 1:
        return list(values)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    together = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(together, dist.ReduceOp.MAX)
    return [float(value) for value in together]


def agree(value: float) -> bool:
    """Whether all ranks have the same value."""
    high, low = largest(value, -value)
    return high == -low


def broadcast_parameters(model: nn.Module) -> None:
    """Give all ranks the tensors of rank 0."""
    if world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)
