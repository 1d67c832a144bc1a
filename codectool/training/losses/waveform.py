"""Waveform loss: distance of samples."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from codectool.training.losses.base import Loss, LossConfig


class WaveformLossConfig(LossConfig, tag="waveform", frozen=True, kw_only=True):
    """Mean absolute difference of samples.

    Attributes:
        relative: divide each difference by the target's standard deviation plus 0.001, so that a
            quiet crop counts as much as a loud one, down to about -60 dBFS.
    """

    relative: bool = False

    @override
    def build(self, sample_rate: int) -> WaveformLoss:
        return WaveformLoss(self)


class WaveformLoss(Loss):
    """``mean |y - x|``, or the mean over items of ``mean |y - x| / (std(x) + 0.001)``."""

    def __init__(self, config: WaveformLossConfig) -> None:
        super().__init__()
        self.relative = config.relative

    @override
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        difference = (output - target).abs()
        if not self.relative:
            return difference.mean()
        return (difference.mean(1) / (target.std(1, correction=0) + 1e-3)).mean()
