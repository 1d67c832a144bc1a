"""Vector quantizers: nearest codeword by direction (BigCodec) and by distance (SuperCodec).

Each has three verbs: `forward` quantizes for inference, `lookup` undoes it, and `learn` quantizes
in a training step, with gradients, losses and what the codebook takes from the batch.

Letters used in shapes: B batch, D latent width, d codebook width, F frames, K stages, N codewords.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.nn.distributed import all_gather_rows, all_reduce_sum, broadcast
from codectool.nn.weight_norm import weight_normed

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


# Rows of the distance table computed at once: bounds memory to 128 MB for 8192 codewords.
FRAMES_AT_ONCE = 4096
EPSILON = 1e-5  # added to every cluster size


@dataclass(frozen=True)
class QuantizedOutput:
    """What a training step makes of a latent.

    Attributes:
        codes: int64, ``(B, F)`` of one stage or ``(B, K, F)`` of several.
        quantized: like the latent; its gradient is passed straight to the latent.
        remainder: like the latent, what is left of it for another stage to quantize.
        losses: mean squared distances in the space of the codewords by name, summed over stages:
            ``commitment`` pulls latents to their codewords, ``codebook`` codewords to their latents
            (VQ-VAE, arXiv 1711.00937, equation 3).
    """

    codes: Tensor
    quantized: Tensor
    remainder: Tensor
    losses: dict[str, Tensor]


class FactorizedQuantizer(nn.Module):
    """Search by direction in a narrow space, reconstruct by the raw codeword.

    Factorized, l2-normalised codes: ViT-VQGAN (arXiv 2110.04627, section 3.2), as used by DAC
    (arXiv 2306.06546, section 3.2).
    """

    def __init__(self, width: int, codebook_width: int, codebook_size: int):
        super().__init__()
        self.in_proj: nn.Module = nn.Identity()
        self.out_proj: nn.Module = nn.Identity()
        if width != codebook_width:
            self.in_proj = weight_normed(nn.Linear(width, codebook_width))
            self.out_proj = weight_normed(nn.Linear(codebook_width, width))
        self.codebook = nn.Embedding(codebook_size, codebook_width)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize.

        Args:
            latent: float ``(B, D, F)``.

        Returns:
            codes int64 ``(B, F)`` and quantized latent ``(B, D, F)``.
        """
        narrow = self.in_proj(latent.transpose(1, 2))
        codes = self._nearest(narrow)
        # The sum e + (q - e) instead of q alone is the straight-through form; it rounds otherwise.
        quantized = narrow + (self.codebook(codes) - narrow)
        return codes, self.out_proj(quantized).transpose(1, 2)

    def learn(self, latent: Tensor) -> QuantizedOutput:
        """Quantize ``(B, D, F)`` in a training step, in float32 whatever autocast says.

        The codewords are parameters like any other. The remainder keeps its gradient with respect
        to both projections: a later stage also teaches the ones before it.
        """
        with torch.autocast(latent.device.type, enabled=False):
            latent = latent.float()
            narrow = self.in_proj(latent.transpose(1, 2))
            codes = self._nearest(narrow.detach())
            codewords = self.codebook(codes)
            straight = narrow + (codewords - narrow).detach()
            quantized = self.out_proj(straight).transpose(1, 2)
            losses = {
                "commitment": F.mse_loss(narrow, codewords.detach()),
                "codebook": F.mse_loss(codewords, narrow.detach()),
            }
        return QuantizedOutput(codes, quantized, latent - quantized, losses)

    def _nearest(self, narrow: Tensor) -> Tensor:
        return torch.cat([self._search(part) for part in torch.split(narrow, FRAMES_AT_ONCE, 1)], 1)

    @torch.no_grad()
    def _search(self, narrow: Tensor) -> Tensor:
        direction = F.normalize(narrow, dim=-1)
        codewords = F.normalize(self.codebook.weight, dim=-1)
        # |e|^2 - 2 e.c + |c|^2, in this order: ties within rounding then fall as in training.
        distance = direction.square().sum(-1, keepdim=True) - 2 * direction @ codewords.t()
        distance = distance + codewords.square().sum(-1)
        return distance.argmin(-1)

    def lookup(self, codes: Tensor) -> Tensor:
        """Latent ``(B, D, F)`` of codes ``(B, F)``."""
        return cast(Tensor, self.out_proj(self.codebook(codes))).transpose(1, 2)


class EuclideanCodebook(nn.Module):
    """Codewords learned by moving averages; search by Euclidean distance.

    With n the number of latents of a batch that are nearest to a codeword and s their sum
    (VQ-VAE, arXiv 1711.00937, appendix A.1):

        cluster_size <- decay cluster_size + (1 - decay) n
        embed_avg    <- decay embed_avg    + (1 - decay) s
        embed         = embed_avg / cluster_size

    where the last cluster_size is smoothed by 1e-5 so that none is zero. The first batch of all is
    clustered by k-means instead. All ranks learn from the batches of all, each of as many latents.

    Attributes:
        decay: weight of the past in the averages.
        dead_code_threshold: a codeword whose cluster_size falls below it is replaced by a latent of
            the batch (SoundStream, arXiv 2107.03312, section III-C). 0 replaces none. It must be
            well below the latents per codeword in a batch, else most are replaced all the time.
    """

    initted: Tensor
    cluster_size: Tensor
    embed_avg: Tensor
    embed: Tensor

    def __init__(self, width: int, codebook_size: int):
        super().__init__()
        self.decay = 0.8
        self.dead_code_threshold = 0.0
        self.register_buffer("initted", torch.zeros(1))
        self.register_buffer("cluster_size", torch.zeros(1, codebook_size))
        self.register_buffer("embed_avg", torch.zeros(1, codebook_size, width))
        self.register_buffer("embed", torch.zeros(1, codebook_size, width))

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize ``(B, F, D)``: codes int64 ``(B, F)`` and their codewords ``(B, F, D)``."""
        parts = torch.split(latent, FRAMES_AT_ONCE, 1)
        codes = torch.cat([torch.cdist(part, self.embed).argmin(-1) for part in parts], 1)
        return codes, self.lookup(codes)

    def learn(self, latent: Tensor) -> QuantizedOutput:
        """Quantize ``(B, F, D)`` in a training step, in float32 whatever autocast says.

        In training mode the codewords move afterwards: the output is made of those before.
        """
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
        return QuantizedOutput(codes, quantized, latent - codewords, losses)

    @torch.no_grad()
    def _initialise(self, rows: Tensor) -> None:
        rows = all_gather_rows(rows)
        means, counts = k_means(rows, draw_rows(rows, self.embed.shape[1]))
        # Every rank has computed them; but each may have drawn others.
        self.embed[0] = broadcast(means)
        # A cluster without members counts as one of one member: with none, its codeword would leave
        # for 0 / 0 in the next update. The authors' program also set the sum to the mean, which
        # sends such codewords far away for some sixty steps.
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
            self._replace_dead(rows)

    def _replace_dead(self, rows: Tensor) -> None:
        dead = self.cluster_size[0] < self.dead_code_threshold
        num_dead = int(dead.sum())
        if num_dead:
            drawn = broadcast(draw_rows(all_gather_rows(rows), num_dead))
            self.embed[0, dead] = drawn
            # As if the new codeword had been used just often enough.
            self.embed_avg[0, dead] = drawn * self.dead_code_threshold
            self.cluster_size[0, dead] = self.dead_code_threshold

    def lookup(self, codes: Tensor) -> Tensor:
        """Codewords ``(B, F, D)`` of codes ``(B, F)``."""
        return F.embedding(codes, self.embed[0])


class ResidualQuantizer(nn.Module):
    """A stack of quantizers, each working on what the ones before it left over.

    SoundStream (arXiv 2107.03312, section III-C).
    """

    def __init__(self, stages: Iterable[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(stages)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize a latent; codes int64 ``(B, K, F)`` and the quantized latent, same shape."""
        residual, total, codes = latent, torch.zeros_like(latent), []
        for stage in self.layers:
            stage_codes, quantized = stage(residual)
            residual = residual - quantized
            total = total + quantized
            codes.append(stage_codes)
        return torch.stack(codes, 1), total

    def learn(self, latent: Tensor) -> QuantizedOutput:
        """Quantize a latent in a training step; codes ``(B, K, F)``, losses summed over stages.

        A stage that has yet to begin does so on what the ones before it left over.
        """
        remainder, total, codes = latent, torch.zeros_like(latent, dtype=torch.float32), []
        losses: dict[str, Tensor] = {}
        for stage in self.layers:
            output: QuantizedOutput = stage.learn(remainder)  # type: ignore[operator]
            remainder = output.remainder
            total = total + output.quantized
            codes.append(output.codes)
            for name, loss in output.losses.items():
                losses[name] = losses[name] + loss if name in losses else loss
        return QuantizedOutput(torch.stack(codes, 1), total, remainder, losses)

    def lookup(self, codes: Tensor) -> Tensor:
        """Latent of the first K' streams: codes ``(B, K', F)``, K' <= K."""
        parts = [stage.lookup(c) for stage, c in zip(self.layers, codes.unbind(1), strict=False)]  # type: ignore[operator]
        total = torch.zeros_like(parts[0])
        for part in parts:
            total = total + part
        return total
