"""Statistics over all processes of a data-parallel run; with one process nothing happens.

Each rank sees its share of the batch. What depends on the batch as a whole (running means, code
counts, the spread of codes) is put together here, so that N ranks learn what one process would
learn from the whole batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum of ``value`` over all ranks, without gradient."""
    value = value.detach()
    if world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total


def all_reduce_mean(value: Tensor) -> Tensor:
    """Mean of ``value`` over all ranks.

    The gradient passes as if the mean were this rank's value: gradients of the weights are
    averaged over the ranks afterwards, which supplies the factor that the mean has.
    """
    if world_size() == 1:
        return value
    mean = all_reduce_sum(value) / world_size()
    return mean + (value - value.detach())  # plus 0: bit for bit the same on all ranks


def all_gather_rows(rows: Tensor) -> Tensor:
    """Rows ``(N, ...)`` of all ranks in the order of the ranks, ``(ranks * N, ...)``; no gradient.

    Every rank must have as many.
    """
    rows = rows.detach()
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def broadcast(value: Tensor) -> Tensor:
    """The ``value`` that rank 0 has; no gradient."""
    value = value.detach()
    if world_size() == 1:
        return value
    value = value.clone()
    dist.broadcast(value, src=0)
    return value
