"""Modulation loss: whether the spectrum of the output varies as much as the target's.

Losses that compare an output with its own target are least for the median of what the tokens leave
open, which is smoother than speech, over frequency and over time. This loss does not compare
frames: it asks that the variances are equal, at each rate in both directions.

In this file S are segments, L frames of a segment, M bands, Q quefrencies.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor
from typing_extensions import override

from codectool.codecs.trainable import Reconstruction
from codectool.errors import ConfigError
from codectool.schema import EvenSize
from codectool.training.losses.base import LOWEST_POWER, BandLossConfig, Loss
from codectool.training.losses.mel import mel_bands
from codectool.training.losses.spectrum import magnitudes

SMALLEST_VARIANCE = 1e-5
AUDIBLE = 4.0  # segments further below the loudest one, in natural logarithms, count less


class ModulationLossConfig(BandLossConfig, tag="modulation", frozen=True, kw_only=True):
    """Difference of the variances of log mel bands by quefrency and modulation frequency.

    Attributes:
        window: length of the Hann window in samples.
        fft_size: size of the FFT in samples.
        hop: samples from one frame to the next.
        bands: number of mel bands.
        quefrencies: number of quefrencies that are compared, from 1 on.
        frames: number of frames of a segment.
        f_min: lower edge of the lowest band in Hz.
        f_max: upper edge of the highest band in Hz; null for half the sampling rate.
    """

    window: EvenSize = 320
    fft_size: EvenSize = 512
    hop: Annotated[int, Meta(ge=1, le=65_536)] = 80
    bands: Annotated[int, Meta(ge=2, le=1024)] = 60
    quefrencies: Annotated[int, Meta(ge=1, le=1024)] = 47
    frames: Annotated[int, Meta(ge=4, le=1024, multiple_of=2)] = 64
    f_min: float = 600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window > self.fft_size:
            raise ConfigError(f"window {self.window} is longer than fft_size {self.fft_size}")
        if self.quefrencies >= self.bands:
            raise ConfigError(
                f"quefrencies {self.quefrencies} is not below the number of bands, {self.bands}"
            )

    @override
    def build(self, sample_rate: int) -> ModulationLoss:
        return ModulationLoss(self, sample_rate)


class ModulationLoss(Loss):
    """Mean squared difference of the logarithms of variances.

    Natural log bands are transformed by a cosine transform over bands, which gives quefrencies, and
    a Fourier transform over the frames of half-overlapping segments. The variance of each
    quefrency, over the segments of all crops, is that of the means of segments, and that of the
    octaves of modulation frequencies. Quiet segments of the target weigh less in both.

    The variances are those of the batch, so that large batches give better estimates. 0 for equal
    variances; independent crops of speech differ, too.
    """

    def __init__(self, config: ModulationLossConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.window: Tensor
        self.bands: Tensor
        self.cosines: Tensor
        self.taper: Tensor
        shape, count = torch.hann_window(config.window), config.bands
        limits = config.f_min, config.f_max
        bands = mel_bands(config.fft_size, count, sample_rate, *limits, unit_sum=True)
        angles = math.pi / count * (torch.arange(count)[:, None] + 0.5)
        cosines = torch.cos(angles * torch.arange(config.quefrencies + 1)) * (2 / count) ** 0.5
        cosines[:, 0] *= 0.5**0.5
        buffers = {
            "window": shape / shape.square().sum().sqrt(),
            "bands": bands,
            "cosines": cosines,
            "taper": torch.hann_window(config.frames)[:, None],
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)
        edges = [1]
        while 2 * edges[-1] <= config.frames // 4:
            edges.append(2 * edges[-1])
        self.octaves = [*zip(edges, [*edges[1:], config.frames // 2 + 1], strict=True)]

    @override
    def compare(self, output: Reconstruction) -> Tensor:
        outputs = [output.audio, *output.others]
        values = [self(each, output.target) for each in outputs]
        return torch.stack(values).mean()

    @override
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        (level, *real), (_, *fake) = self._moments(target), self._moments(output)
        weight = torch.sigmoid(2 * (level - level.amax() + AUDIBLE))
        logs = [
            self._variances(weight / weight.sum(), *moments).clamp(min=SMALLEST_VARIANCE).log()
            for moments in (real, fake)
        ]
        return (logs[1] - logs[0]).square().mean()

    def _moments(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return level ``(B, S)``, mean ``(B, S, Q)`` and power ``(B, S, octaves, Q)``."""
        config = self.config
        needed = config.window + (config.frames - 1) * config.hop
        if signal.shape[-1] < needed:
            raise ConfigError(
                f"{signal.shape[-1]} samples are too few for a modulation loss, which needs "
                f"{needed}: use longer crops, or fewer frames"
            )
        power = magnitudes(signal, self.window, config.fft_size, config.hop, power=2) @ self.bands
        parts = 0.5 * (power + LOWEST_POWER).log() @ self.cosines
        parts = parts.unfold(1, config.frames, config.frames // 2).mT  # (B, S, L, Q)
        means = parts.mean(2)
        spectra = torch.fft.rfft((parts - means[:, :, None]) * self.taper, dim=2)
        size = torch.view_as_real(spectra).square().sum(-1) / config.frames
        octaves = [size[:, :, first:last].mean(2) for first, last in self.octaves]
        level = means[..., 0] / config.bands**0.5
        return level, means[..., 1:], torch.stack(octaves, 2)[..., 1:]

    def _variances(self, weight: Tensor, means: Tensor, powers: Tensor) -> Tensor:
        """Return variances ``(1 + octaves, Q)``, with weights ``(B, S)`` that sum to 1."""
        mean = torch.einsum("bs,bsq->q", weight, means)
        slow = torch.einsum("bs,bsq->q", weight, (means - mean).square())
        return torch.cat([slow[None], torch.einsum("bs,bsoq->oq", weight, powers)])
