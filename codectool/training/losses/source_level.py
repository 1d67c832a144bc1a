"""Source level loss: whether a decoder's source predicts the levels of the target's bands.

The energy distance of outputs says little about one frame: it is a difference of random spectra.
Here the gains of the source are compared with the target directly, before anything random.
"""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import override

from codectool.codecs.trainable import Reconstruction
from codectool.errors import ConfigError
from codectool.schema import EvenSize
from codectool.training.losses.base import LOWEST_POWER, Loss, LossConfig
from codectool.training.losses.spectrum import magnitudes


class SourceLevelLossConfig(LossConfig, tag="source_level", frozen=True, kw_only=True):
    """Distance of the levels that a decoder's source predicts from the levels of the target.

    Attributes:
        window: length in samples of the Hann window with which the target is measured.
    """

    needs_source = True

    window: EvenSize = 320

    @override
    def build(self, sample_rate: int) -> SourceLevelLoss:
        return SourceLevelLoss(self, sample_rate)


class SourceLevelLoss(Loss):
    """Mean absolute difference of natural log levels, without the median difference.

        mean |e - median(e)|,   e = log sqrt(G^2 + p) - log sqrt(X^2 + p),   p = 3e-9

    G is the predicted amplitude of harmonics and noise together in a band, X the amplitude of the
    target, whose power is averaged over the band. The medians are taken over the frames of the
    batch for each band, apart for voiced and unvoiced frames: a constant error of the level is the
    concern of other losses, and so is what share of the level is harmonics.

    Raises:
        ConfigError: In `compare`: the window is longer than the FFT of the source.
    """

    def __init__(self, config: SourceLevelLossConfig, sample_rate: int) -> None:
        super().__init__()
        self.window: Tensor
        shape = torch.hann_window(config.window)
        self.register_buffer("window", shape / shape.square().sum().sqrt(), persistent=False)

    @override
    def compare(self, output: Reconstruction) -> Tensor:
        source = output.source
        assert source is not None
        length, fft_size, hop = len(self.window), 2 * (len(source.bands) - 1), source.level_hop
        if length > fft_size:
            raise ConfigError(
                f"source_level: window {length} is longer than the FFT of the source, {fft_size}"
            )
        start = source.level_offset - length // 2
        skipped = max(0, -(start // hop))  # rows whose window begins before the target
        signal = output.target[:, 0, start + skipped * hop :].float()
        power = magnitudes(signal, self.window, fft_size, hop, power=2) @ source.bands
        count = min(power.shape[1], source.levels.shape[1] - skipped)
        target = 0.5 * (power[:, :count] + LOWEST_POWER).log()
        rows = slice(skipped, skipped + count)
        lowest = torch.full_like(target, LOWEST_POWER).log()
        error = 0.5 * torch.logaddexp(2 * source.levels[:, rows], lowest) - target
        voiced = (source.voicing > 0).repeat_interleave(source.frame // hop, 1)[:, rows]
        total = error.new_zeros(())
        for frames in (voiced, ~voiced):
            part = error[frames]
            if len(part):
                total = total + (part - part.detach().median(0).values).abs().sum()
        return total / error.numel()
