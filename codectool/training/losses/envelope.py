"""Envelope loss: whether the bands of the output rise and fall like the bands of the target.

Listeners follow speech by the envelopes of its bands, weak bands included. A band that has the
right mean level but is flat, or rises at the wrong time, carries no information; log-spectral
distances, which treat each frame separately, hardly penalize it.

In this file S are segments, L frames of a segment, M bands.
"""

from __future__ import annotations

from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor
from typing_extensions import override

from codectool.errors import ConfigError
from codectool.schema import MAX_SIZE, EvenSize, NonNegativeFloat, PositiveFloat
from codectool.training.losses.base import SILENCE, BandLossConfig, Loss
from codectool.training.losses.spectrum import magnitudes


class EnvelopeLossConfig(BandLossConfig, tag="envelope", frozen=True, kw_only=True):
    """Correlation of the envelopes of third-octave bands, as in STOI and ESTOI.

    Attributes:
        window: length of the Hann window in samples; the hop is half of it.
        frames: number of frames of a segment.
        f_min: centre of the lowest band in Hz.
        f_max: upper limit of the bands in Hz.
        spectra: compare the spectra of frames without the mean levels of the bands (ESTOI) instead
            of the envelope of each band (STOI).
    """

    window: EvenSize = 640
    frames: Annotated[int, Meta(ge=2, le=MAX_SIZE)] = 30
    f_min: PositiveFloat = 150.0
    f_max: NonNegativeFloat = 5000.0
    spectra: bool = False

    @override
    def build(self, sample_rate: int) -> EnvelopeLoss:
        return EnvelopeLoss(self, sample_rate)


class EnvelopeLoss(Loss):
    """One minus the mean correlation of the envelopes of third-octave bands.

    In each segment, some tenths of a second long, the amplitudes of each band are freed of their
    mean and scaled to unit norm; with ``spectra``, then the amplitudes of each frame across bands.
    The mean product is the correlation of STOI without its clipping (Taal et al., IEEE TASLP 19(7),
    2011, section II), or of ESTOI (Jensen and Taal, IEEE/ACM TASLP 24(11), 2016, section III).
    Pauses are not cut out, but segments whose target is silent do not count. 0 for equal envelopes,
    1 for unrelated ones.

    Raises:
        ConfigError: There is no band, or one without a bin.
    """

    window: Tensor
    bands: Tensor

    def __init__(self, config: EnvelopeLossConfig, sample_rate: int) -> None:
        super().__init__()
        self.frames, self.spectra = config.frames, config.spectra
        shape = torch.hann_window(config.window)
        bands = third_octaves(sample_rate, 2 * config.window, config.f_min, config.f_max)
        self.register_buffer("window", 2 * shape / shape.sum(), persistent=False)
        self.register_buffer("bands", bands, persistent=False)

    @override
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        y, x = self._segments(output), self._segments(target)
        loud = (x.square().sum(2).amax(-1) > (10 * SILENCE) ** 2).float()
        products = self._normalized(y) * self._normalized(x)
        agreement = products.sum((2, 3)) / products.shape[3 if self.spectra else 2]
        return 1 - (agreement * loud).sum() / loud.sum().clamp(min=1)

    def _segments(self, signal: Tensor) -> Tensor:
        """Return amplitudes ``(B, S, M, L)`` of ``(B, N)``."""
        length = len(self.window)
        needed = (self.frames + 1) * length // 2
        if signal.shape[-1] < needed:
            raise ConfigError(
                f"{signal.shape[-1]} samples are too few for an envelope loss, which needs {needed}"
                ": use longer crops, or fewer frames"
            )
        power = magnitudes(signal, self.window, 2 * length, length // 2, power=2) @ self.bands
        # the root has no derivative at 0
        return (power + SILENCE**2).sqrt().unfold(1, self.frames, 1)

    def _normalized(self, segments: Tensor) -> Tensor:
        rows = _unit(segments, -1, SILENCE)
        return _unit(rows, -2, 1e-3) if self.spectra else rows


def third_octaves(sample_rate: int, fft_size: int, f_min: float, f_max: float) -> Tensor:
    """Return the bins of each third-octave band as zeros and ones ``(fft_size // 2 + 1, M)``.

    Raises:
        ConfigError: There is no band, or one without a bin.
    """
    half = 2 ** (1 / 6)
    edges = [f_min / half]
    while edges[-1] * half * half <= min(f_max, sample_rate / 2):
        edges.append(edges[-1] * half * half)
    bins = torch.arange(fft_size // 2 + 1) * (sample_rate / fft_size)
    lower, upper = (torch.tensor(e) for e in (edges[:-1], edges[1:]))
    bands = ((bins[:, None] >= lower) & (bins[:, None] < upper)).float()
    if bands.shape[1] == 0:
        raise ConfigError(
            f"no third of an octave around f_min, {f_min} Hz, ends below f_max, {f_max} Hz, and "
            "half the sampling rate: set them farther apart"
        )
    if not bands.sum(0).all():
        raise ConfigError(
            f"bands of {f_min} to {f_max} Hz need longer windows than {fft_size // 2}"
        )
    return bands


def _unit(values: Tensor, axis: int, smallest: float) -> Tensor:
    """Remove the mean along an axis and scale to norm 1; nearly constant values stay near 0."""
    values = values - values.mean(axis, keepdim=True)
    return values / (values.square().sum(axis, keepdim=True) + smallest**2).sqrt()
