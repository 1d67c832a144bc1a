"""Factorized vector quantizer of BigCodec: nearest codeword by direction in a narrow space."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.nn.quantize import FRAMES_AT_ONCE, Quantizer, QuantizerOutput
from codectool.nn.weight_norm import weight_normed


class FactorizedQuantizer(Quantizer):
    """Project to a narrow space, search by direction, reconstruct from the raw codeword.

    Factorized, l2-normalized codes: ViT-VQGAN (arXiv 2110.04627, section 3.2), as used by DAC
    (arXiv 2306.06546, section 3.2). Latents are ``(B, F, D)``, D being ``width``.
    """

    def __init__(self, width: int, codebook_width: int, codebook_size: int):
        super().__init__()
        self.in_proj: nn.Module = nn.Identity()
        self.out_proj: nn.Module = nn.Identity()
        if width != codebook_width:
            self.in_proj = weight_normed(nn.Linear(width, codebook_width))
            self.out_proj = weight_normed(nn.Linear(codebook_width, width))
        self.codebook = nn.Embedding(codebook_size, codebook_width)

    @override
    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        narrow = self.in_proj(latent)
        codes = self._nearest(narrow)
        # e + (q - e) rounds differently from q; the reference implementation computes the former.
        quantized = narrow + (self.codebook(codes) - narrow)
        return codes, self.out_proj(quantized)

    @override
    def forward_train(self, latent: Tensor) -> QuantizerOutput:
        """Quantize in float32; the codewords are learned by gradient descent.

        The residual has a gradient for both projections, so later stages also train earlier ones.
        """
        with torch.autocast(latent.device.type, enabled=False):
            latent = latent.float()
            narrow = self.in_proj(latent)
            codes = self._nearest(narrow.detach())
            codewords = self.codebook(codes)
            quantized = self.out_proj(narrow + (codewords - narrow).detach())
            losses = {
                "commitment": F.mse_loss(narrow, codewords.detach()),
                "codebook": F.mse_loss(codewords, narrow.detach()),
            }
        return QuantizerOutput(codes, quantized, latent - quantized, losses)

    @override
    def lookup(self, codes: Tensor) -> Tensor:
        return cast(Tensor, self.out_proj(self.codebook(codes)))

    @torch.no_grad()
    def _nearest(self, narrow: Tensor) -> Tensor:
        codewords = F.normalize(self.codebook.weight, dim=-1)
        squared_norms = codewords.square().sum(-1)
        codes = []
        for part in torch.split(narrow, FRAMES_AT_ONCE, 1):
            direction = F.normalize(part, dim=-1)
            # |e|^2 - 2 e.c + |c|^2, in this order: ties within rounding are broken as in training.
            distance = direction.square().sum(-1, keepdim=True) - 2 * direction @ codewords.t()
            codes.append((distance + squared_norms).argmin(-1))
        return torch.cat(codes, 1)
