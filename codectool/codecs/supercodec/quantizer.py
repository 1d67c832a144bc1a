"""Codebook of SuperCodec: nearest codeword by distance, learned by moving averages."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.nn.derived import Derived
from codectool.nn.distributed import all_gather_rows, all_reduce_sum, broadcast
from codectool.nn.packed import PackedLinear
from codectool.nn.quantize import FRAMES_AT_ONCE, Quantizer, QuantizerOutput

EPSILON = 1e-5  # added to every cluster size


class EuclideanCodebook(Quantizer):
    """Codewords learned by moving averages; latents are ``(B, F, D)``.

    With n the number of latents of a batch that are nearest to a codeword and s their sum
    (VQ-VAE, arXiv 1711.00937, appendix A.1):

        cluster_size <- decay cluster_size + (1 - decay) n
        embed_avg    <- decay embed_avg    + (1 - decay) s
        embed         = embed_avg / cluster_size

    where the last cluster_size is smoothed by 1e-5 so that none is zero. The first batch is
    clustered by k-means instead. In a distributed run all ranks use the latents of all ranks;
    every rank must have the same number.

    Attributes:
        decay: weight of the past in the averages.
        dead_code_threshold: a codeword with a smaller cluster_size is replaced by a latent of the
            batch (SoundStream, arXiv 2107.03312, section III-C); 0 replaces none. Unless it is well
            below the number of latents per codeword in a batch, every step replaces most codewords.
    """

    def __init__(self, width: int, codebook_size: int):
        super().__init__()
        self.decay = 0.8
        self.dead_code_threshold = 0.0
        self.initted = nn.Buffer(torch.zeros(1))
        self.cluster_size = nn.Buffer(torch.zeros(1, codebook_size))
        self.embed_avg = nn.Buffer(torch.zeros(1, codebook_size, width))
        self.embed = nn.Buffer(torch.zeros(1, codebook_size, width))
        self._distances: Derived[PackedLinear] = Derived()

    @override
    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        distances = self._distances.get(self, lambda: _distances(self.embed[0]))
        codes = _nearest(latent.flatten(0, 1), distances).view(latent.shape[:2])
        return codes, self.lookup(codes)

    @override
    def forward_train(self, latent: Tensor) -> QuantizerOutput:
        """Quantize in float32; in training mode, update the codewords afterwards."""
        with torch.autocast(latent.device.type, enabled=False):
            latent = latent.float()
            fixed = latent.detach()
            if self.training and not self.initted.item():
                self._initialise(fixed.flatten(0, 1))
            codes, codewords = self(fixed)
            if self.training:
                self._update(fixed.flatten(0, 1), codes.flatten())
            quantized = latent + (codewords - fixed)
            losses = {"commitment": F.mse_loss(latent, codewords)}
        # Not minus `quantized`: the gradients of the two would cancel.
        return QuantizerOutput(codes, quantized, latent - codewords, losses)

    @override
    def lookup(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.embed[0])

    @torch.no_grad()
    def _initialise(self, rows: Tensor) -> None:
        rows = all_gather_rows(rows)
        means, counts = k_means(rows, draw_rows(rows, self.embed.shape[1]))
        # Each rank may have drawn other rows, so the result of rank 0 is used.
        self.embed[0] = broadcast(means)
        # An empty cluster counts as one with a single member; otherwise its codeword would become
        # 0 / 0 in the next update. The reference implementation also sets embed_avg to the mean,
        # which moves such codewords far away for about sixty steps.
        self.cluster_size[0] = broadcast(counts).clamp(min=1)
        self.embed_avg.copy_(self.embed * self.cluster_size.unsqueeze(-1))
        self.initted.fill_(1)

    @torch.no_grad()
    def _update(self, rows: Tensor, codes: Tensor) -> None:
        sums, counts = cluster_sums(rows, codes, self.embed.shape[1])
        self.cluster_size.mul_(self.decay).add_(all_reduce_sum(counts), alpha=1 - self.decay)
        self.embed_avg.mul_(self.decay).add_(all_reduce_sum(sums), alpha=1 - self.decay)
        total, num_codewords = self.cluster_size.sum(), self.cluster_size.numel()
        share = (self.cluster_size + EPSILON) / (total + num_codewords * EPSILON)
        self.embed.copy_(self.embed_avg / (share * total).unsqueeze(-1))
        if self.dead_code_threshold > 0:
            self._replace_dead_codes(rows)

    def _replace_dead_codes(self, rows: Tensor) -> None:
        dead = self.cluster_size[0] < self.dead_code_threshold
        num_dead = int(dead.sum())
        if num_dead:
            drawn = broadcast(draw_rows(all_gather_rows(rows), num_dead))
            self.embed[0, dead] = drawn
            # As if the new codeword had been used just often enough.
            self.embed_avg[0, dead] = drawn * self.dead_code_threshold
            self.cluster_size[0, dead] = self.dead_code_threshold


def k_means(rows: Tensor, start: Tensor, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """Run Lloyd's algorithm for a fixed number of iterations; an empty cluster keeps its mean.

    Args:
        rows: ``(M, D)``.
        start: initial means ``(N, D)``.
        iterations: at least one.

    Returns:
        Means ``(N, D)`` and the number of rows in each cluster ``(N,)``.
    """
    means, counts = start, start.new_zeros(len(start))
    for _ in range(iterations):
        sums, counts = cluster_sums(rows, _nearest(rows, _distances(means)), len(means))
        means = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], means)
    return means, counts


def cluster_sums(rows: Tensor, clusters: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """Sum and count the rows of each of N clusters.

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


def draw_rows(rows: Tensor, count: int) -> Tensor:
    """Draw rows of ``(M, D)`` with torch's global CPU generator, with replacement if M < count."""
    if count <= len(rows):
        chosen = torch.randperm(len(rows))[:count]
    else:
        chosen = torch.randint(len(rows), (count,))
    return rows[chosen.to(rows.device)]


def _distances(means: Tensor) -> PackedLinear:
    """Return the squared distances to ``(N, D)``, less the squared norm of the row itself."""
    return PackedLinear(-2 * means, means.square().sum(-1))


def _nearest(rows: Tensor, distances: PackedLinear) -> Tensor:
    """Return the index of the mean nearest to each row of ``(M, D)``."""
    parts = torch.split(rows, FRAMES_AT_ONCE)
    return torch.cat([distances(part).argmin(-1) for part in parts])
