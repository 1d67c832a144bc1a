"""Collective operations for statistics of a distributed batch; no-ops in a single process.

Statistics that depend on the whole batch (running means, code counts) are combined over all ranks,
so that N ranks learn what one process would learn from the whole batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(value: Tensor) -> Tensor:
    """Return the sum of ``value`` over all ranks, detached."""
    value = value.detach()
    if world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total


def all_reduce_mean(value: Tensor) -> Tensor:
    """Return the mean of ``value`` over all ranks, with a gradient.

    The gradient is the same as if the mean were this rank's value: gradients of the weights are
    averaged over the ranks later, which contributes the factor 1 / world size.
    """
    if world_size() == 1:
        return value
    mean = all_reduce_sum(value) / world_size()
    return mean + (value - value.detach())  # plus 0: bit for bit the same on all ranks


def all_gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the rows ``(N, ...)`` of all ranks in order, detached: ``(ranks * N, ...)``.

    N must be the same on all ranks.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def broadcast(value: Tensor) -> Tensor:
    """Return the ``value`` of rank 0, detached."""
    value = value.detach()
    if world_size() == 1:
        return value
    value = value.clone()
    dist.broadcast(value, src=0)
    return value
