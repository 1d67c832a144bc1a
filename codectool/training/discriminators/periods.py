"""Multi-period discriminator (HiFi-GAN, arXiv 2010.05646, section 2.3).

Speech is a sum of periodic signals: a network that sees every p-th sample beside each other tells
whether the pitch cycles are right. Primes overlap least.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from codectool.nn.weight_norm import weight_normed
from codectool.training.discriminators.base import (
    Discriminator,
    SubDiscriminator,
    require_samples,
)

STRIDES = (3, 3, 3, 3, 1)
SLOPE = 0.1


class MultiPeriodDiscriminator(Discriminator):
    """One network for each period; its convolutions run along time and never across a period.

    Args:
        periods: in samples.
        channels: width of the first layer.
        factor: by which the width grows from one layer to the next.
        max_channels: where it stops growing.
    """

    def __init__(
        self, periods: Sequence[int], channels: int, factor: int, max_channels: int
    ) -> None:
        widths = [min(channels * factor**depth, max_channels) for depth in range(len(STRIDES))]
        super().__init__([_member(period, widths) for period in periods])


class Fold(nn.Module):
    """Waves ``(B, 1, N)`` as pictures ``(B, ceil(N / period), period, 1)``, row after row."""

    def __init__(self, period: int) -> None:
        super().__init__()
        self.period = period

    def forward(self, wave: Tensor) -> Tensor:
        """Fold; what the last row lacks is the end of the wave mirrored.

        Reflection needs more samples than it adds; a shorter wave repeats its last sample.
        """
        require_samples(wave, 1, "the multi-period discriminator")
        lacking = -wave.shape[-1] % self.period
        mode = "reflect" if lacking < wave.shape[-1] else "replicate"
        padded = F.pad(wave, (0, lacking), mode=mode)
        return padded.reshape(len(wave), -1, self.period, 1)


def _member(period: int, widths: Sequence[int]) -> SubDiscriminator:
    hidden = [
        weight_normed(nn.Conv2d(before, width, (5, 1), stride=(stride, 1), padding=(2, 0)))
        for before, width, stride in zip([1, *widths], widths, STRIDES, strict=False)
    ]
    last = weight_normed(nn.Conv2d(widths[-1], 1, (2, 1), padding=(1, 0)))
    return SubDiscriminator(Fold(period), hidden, last, SLOPE)
