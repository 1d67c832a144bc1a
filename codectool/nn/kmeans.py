"""k-means over the rows of a matrix: how a codebook that has seen nothing yet begins.

Letters used in shapes: M rows, D width, N clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rows of the distance table computed at once: bounds memory to 128 MB for 8192 clusters.
ROWS_AT_ONCE = 4096


def nearest(rows: Tensor, means: Tensor) -> Tensor:
    """Index of the nearest mean by Euclidean distance: ``(M, D)``, ``(N, D)`` -> int64 ``(M,)``."""
    parts = torch.split(rows, ROWS_AT_ONCE)
    return torch.cat([torch.cdist(part, means).argmin(-1) for part in parts])


def cluster_sums(rows: Tensor, clusters: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Add up the rows of every cluster.

    Args:
        rows: ``(M, D)``.
        clusters: int64 ``(M,)``, the cluster of each row.
        num_clusters: N.

    Returns:
        Sums ``(N, D)`` and numbers of rows ``(N,)``, in the dtype of `rows`.
    """
    sums = rows.new_zeros(num_clusters, rows.shape[1]).index_add_(0, clusters, rows)
    counts = rows.new_zeros(num_clusters).index_add_(0, clusters, rows.new_ones(len(rows)))
    return sums, counts


def k_means(rows: Tensor, start: Tensor, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm for a fixed number of iterations; an empty cluster keeps its mean.

    Args:
        rows: ``(M, D)``.
        start: first means ``(N, D)``.
        iterations: at least one.

    Returns:
        Means ``(N, D)`` and the numbers of rows ``(N,)`` that they are means of.
    """
    means, counts = start, start.new_zeros(len(start))
    for _ in range(iterations):
        sums, counts = cluster_sums(rows, nearest(rows, means), len(means))
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], means)
    return means, counts


def draw_rows(rows: Tensor, count: int) -> Tensor:
    """Draw rows with torch's global generator of the CPU.

    Args:
        rows: ``(M, D)``, M >= 1.
        count: how many to draw: without replacement if there are as many, else with.

    Returns:
        ``(count, D)``.
    """
    if count <= len(rows):
        chosen = torch.randperm(len(rows))[:count]
    else:
        chosen = torch.randint(len(rows), (count,))
    return rows[chosen.to(rows.device)]
