"""Statistics over all processes of a data-parallel run; with one process nothing happens.

Each rank sees its share of the batch. What depends on the batch as a whole (running means, code
counts, the spread of codes) is put together here, so that N ranks learn what one process would
learn from the whole batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def num_ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum of ``value`` over all ranks, without gradient."""
    value = value.detach()
    if num_ranks() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total


def mean_over_ranks(value: Tensor) -> Tensor:
    """Mean of ``value`` over all ranks.

    The gradient passes as if the mean were this rank's value: gradients of the weights are
    averaged over the ranks afterwards, which supplies the factor that the mean has.
    """
    if num_ranks() == 1:
        return value
    mean = sum_over_ranks(value) / num_ranks()
    return mean + (value - value.detach())  # plus 0: bit for bit the same on all ranks


def gather_rows(rows: Tensor) -> Tensor:
    """Rows ``(N, ...)`` of all ranks in the order of the ranks, ``(ranks * N, ...)``; no gradient.

    Every rank must have as many.
    """
    rows = rows.detach()
    if num_ranks() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(num_ranks())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def from_first_rank(value: Tensor) -> Tensor:
    """The ``value`` that rank 0 has; no gradient."""
    value = value.detach()
    if num_ranks() == 1:
        return value
    value = value.clone()
    dist.broadcast(value, src=0)
    return value
