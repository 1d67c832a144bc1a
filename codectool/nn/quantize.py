"""Residual vector quantization and the interface of its stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from typing_extensions import override

FRAMES_AT_ONCE = 4096  # rows of a distance table: 128 MB for 8192 codewords


@dataclass(frozen=True)
class QuantizerOutput:
    """Result of quantizing a latent in a training step.

    Attributes:
        codes: int64, ``(B, F)`` from one stage or ``(B, K, F)`` from several.
        quantized: shaped like the latent; straight-through: its gradient goes to the latent.
        residual: shaped like the latent; input of the next stage.
        losses: mean squared distances in codeword space by name, summed over stages:
            ``commitment`` moves latents towards their codewords, ``codebook`` the reverse
            (VQ-VAE, arXiv 1711.00937, equation 3).
    """

    codes: Tensor
    quantized: Tensor
    residual: Tensor
    losses: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """One stage: a codebook, and whatever projects to and from it."""

    @abstractmethod
    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Quantize for inference: codes, int64 ``(B, F)``, and the latent ``(B, F, D)``."""

    @abstractmethod
    def forward_train(self, latent: Tensor) -> QuantizerOutput:
        """Quantize in a training step, with gradients, in float32 even under autocast."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """Return the quantized latent of codes ``(B, F)``."""


class ResidualQuantizer(Quantizer):
    """Stages that each quantize the residual of the stages before.

    SoundStream (arXiv 2107.03312, section III-C). Codes are ``(B, K, F)``.
    """

    def __init__(self, stages: Iterable[Quantizer]):
        super().__init__()
        self.layers = cast("Sequence[Quantizer]", nn.ModuleList(stages))

    @override
    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        residual, total, codes = latent, torch.zeros_like(latent), []
        for stage in self.layers:
            stage_codes, quantized = stage(residual)
            residual = residual - quantized
            total = total + quantized
            codes.append(stage_codes)
        return torch.stack(codes, 1), total

    @override
    def forward_train(self, latent: Tensor) -> QuantizerOutput:
        residual, total, codes = latent, torch.zeros_like(latent, dtype=torch.float32), []
        losses: dict[str, Tensor] = {}
        for stage in self.layers:
            output = stage.forward_train(residual)
            residual = output.residual
            total = total + output.quantized
            codes.append(output.codes)
            for name, loss in output.losses.items():
                losses[name] = losses[name] + loss if name in losses else loss
        return QuantizerOutput(torch.stack(codes, 1), total, residual, losses)

    @override
    def lookup(self, codes: Tensor) -> Tensor:
        """Return the quantized latent of the first K' codebooks: codes ``(B, K', F)``, K' <= K."""
        parts = [stage.lookup(c) for stage, c in zip(self.layers, codes.unbind(1), strict=False)]
        return sum(parts, torch.zeros_like(parts[0]))
