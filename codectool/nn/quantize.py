"""Vector quantizers: nearest codeword by direction (BigCodec) and by distance (SuperCodec).

Letters used in shapes: B batch, D latent width, d codebook width, F frames, K stages, N codewords.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.nn.weight_norm import weight_normed

# Rows of the distance table computed at once: bounds memory to 128 MB for 8192 codewords.
FRAMES_AT_ONCE = 4096


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
        codes = torch.cat(
            [self._search(part) for part in torch.split(narrow, FRAMES_AT_ONCE, 1)], 1
        )
        # The sum e + (q - e) instead of q alone is the straight-through form; it rounds otherwise.
        quantized = narrow + (self.codebook(codes) - narrow)
        return codes, self.out_proj(quantized).transpose(1, 2)

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

    VQ-VAE-2 (arXiv 1906.00446, appendix). The buffers are those of a trained codebook; updating
    them belongs to training.
    """

    initted: Tensor
    cluster_size: Tensor
    embed_avg: Tensor
    embed: Tensor

    def __init__(self, width: int, codebook_size: int):
        super().__init__()
        self.register_buffer("initted", torch.zeros(1))
        self.register_buffer("cluster_size", torch.zeros(1, codebook_size))
        self.register_buffer("embed_avg", torch.zeros(1, codebook_size, width))
        self.register_buffer("embed", torch.zeros(1, codebook_size, width))

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize ``(B, F, D)``: codes int64 ``(B, F)`` and their codewords ``(B, F, D)``."""
        parts = torch.split(latent, FRAMES_AT_ONCE, 1)
        codes = torch.cat([torch.cdist(part, self.embed).argmin(-1) for part in parts], 1)
        return codes, self.lookup(codes)

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

    def lookup(self, codes: Tensor) -> Tensor:
        """Latent of the first K' streams: codes ``(B, K', F)``, K' <= K."""
        parts = [stage.lookup(c) for stage, c in zip(self.layers, codes.unbind(1), strict=False)]  # type: ignore[operator]
        total = torch.zeros_like(parts[0])
        for part in parts:
            total = total + part
        return total
