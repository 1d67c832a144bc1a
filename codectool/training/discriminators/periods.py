"""Multi-period discriminator (HiFi-GAN, arXiv 2010.05646, section 2.3).

Speech is a sum of periodic signals: a network that sees every p-th sample side by side checks
whether the pitch cycles are right. Prime periods overlap least.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.schema import Size, Sizes
from codectool.training.discriminators.base import (
    Discriminator,
    DiscriminatorConfig,
    SubDiscriminator,
    require_samples,
)

STRIDES = (3, 3, 3, 3, 1)
SLOPE = 0.1


class MultiPeriodConfig(DiscriminatorConfig, tag="periods", frozen=True):
    """Multi-period discriminator (HiFi-GAN, arXiv 2010.05646).

    Attributes:
        periods: periods in samples, one network each.
        channels: width of the first layer.
        factor: growth of the width from one layer to the next.
        max_channels: largest width.
    """

    periods: Sizes = (2, 3, 5, 7, 11)
    channels: Size = 16
    factor: Size = 4
    max_channels: Size = 512

    @override
    def build(self) -> Discriminator:
        widths = [
            min(self.channels * self.factor**depth, self.max_channels)
            for depth in range(len(STRIDES))
        ]
        return Discriminator([_member(period, widths) for period in self.periods])


def _member(period: int, widths: Sequence[int]) -> SubDiscriminator:
    """Convolutions along time, never across a period."""
    hidden = [
        nn.Conv2d(before, width, (5, 1), stride=(stride, 1), padding=(2, 0))
        for before, width, stride in zip([1, *widths], widths, STRIDES, strict=False)
    ]
    last = nn.Conv2d(widths[-1], 1, (2, 1), padding=(1, 0))
    return SubDiscriminator(PeriodFold(period), hidden, last, SLOPE)


class PeriodFold(nn.Module):
    """Fold waves ``(B, 1, N)`` to images ``(B, ceil(N / period), period, 1)``, row after row."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period

    def forward(self, wave: Tensor) -> Tensor:
        """Fold waves; the last row is filled by reflecting the end of the wave.

        Reflection needs more samples than it adds; a shorter wave repeats its last sample.
        """
        require_samples(wave, 1, "the multi-period discriminator")
        missing = -wave.shape[-1] % self.period
        mode = "reflect" if missing < wave.shape[-1] else "replicate"
        padded = F.pad(wave, (0, missing), mode=mode)
        return padded.reshape(len(wave), -1, self.period, 1)
