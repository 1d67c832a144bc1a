"""Discriminators on short-time spectra: of their magnitudes, or of real and imaginary parts.

`MagnitudeStftDiscriminator` is BigCodec's (arXiv 2409.05377), `ComplexStftDiscriminator`
EnCodec's (arXiv 2210.13438, section 3.4) in the two forms of SuperCodec and HAC. All windows are
Hann windows and a hop is a quarter of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from codectool.errors import ConfigError
from codectool.nn.weight_norm import weight_normed
from codectool.training.discriminators.base import (
    Discriminator,
    SubDiscriminator,
    require_samples,
)

SLOPE = 0.2
DILATIONS = (1, 2, 4)  # over time, of the three layers in the middle of the complex form
MIN_POWER, MAX_POWER = 1e-7, 1e3


class MagnitudeStftDiscriminator(Discriminator):
    """One network for each resolution, on magnitudes of centred spectra.

    BigCodec's table names the strides of the three layers in the middle "scales"; the first layer
    halves as well, and widths double whatever the scales are.

    Args:
        fft_sizes: windows in samples.
        channels: width of the first layer.
        max_channels: where doubling stops.
        kernel_sizes: of the layers that halve the picture, and of the last two.
        scales: strides of the layers between the first and the last two.
    """

    def __init__(
        self,
        fft_sizes: Sequence[int],
        channels: int,
        max_channels: int,
        kernel_sizes: tuple[int, int] = (5, 3),
        scales: Sequence[int] = (2, 2, 2),
    ) -> None:
        strides = [2, *scales, 1]
        widths = [min(channels * 2**depth, max_channels) for depth in range(len(strides))]
        large, small = kernel_sizes
        kernels = [large] * (len(strides) - 1) + [small]
        layers = list(zip([1, *widths], widths, kernels, strides, strict=False))

        def member(size: int) -> SubDiscriminator:
            hidden = [
                weight_normed(nn.Conv2d(before, width, kernel, stride, padding=kernel // 2))
                for before, width, kernel, stride in layers
            ]
            last = weight_normed(nn.Conv2d(widths[-1], 1, small, padding=small // 2))
            return SubDiscriminator(MagnitudePicture(size), hidden, last, SLOPE)

        super().__init__([member(size) for size in fft_sizes])


class ComplexStftDiscriminator(Discriminator):
    """One network for each window, on real and imaginary parts.

    Spectra are not centred, so that no sample is seen twice. Time is the picture's height and
    keeps its resolution; frequency is halved three times.

    Args:
        windows: in samples.
        channels: widths of the five hidden layers. Constant in SuperCodec; F, F, 2F, 4F, 8F in
            HAC, which gives the 0.61 M (F = 16, four windows) and 0.12 M (F = 8, three windows)
            parameters of its design.
        norm_first: whether the first layer has weight norm like all others; SuperCodec's has not.
    """

    def __init__(
        self, windows: Sequence[int], channels: Sequence[int], norm_first: bool = True
    ) -> None:
        if len(channels) != 5:
            raise ConfigError(
                f"the complex STFT discriminator has 5 hidden layers, channels gives "
                f"{len(channels)} widths"
            )

        def member(window: int) -> SubDiscriminator:
            first = nn.Conv2d(2, channels[0], (3, 9), padding=(1, 4))
            middle = [
                nn.Conv2d(before, width, (3, 9), (1, 2), padding=(late, 4), dilation=(late, 1))
                for before, width, late in zip(channels, channels[1:], DILATIONS, strict=False)
            ]
            fifth = nn.Conv2d(channels[3], channels[4], 3, padding=1)
            hidden = [
                weight_normed(first) if norm_first else first,
                *(weight_normed(layer) for layer in [*middle, fifth]),
            ]
            last = weight_normed(nn.Conv2d(channels[4], 1, 3, padding=1))
            return SubDiscriminator(ComplexPicture(window), hidden, last, SLOPE)

        super().__init__([member(window) for window in windows])


class MagnitudePicture(nn.Module):
    """Waves ``(B, 1, N)`` as magnitudes ``(B, size / 2 + 1, N // (size / 4) + 1, 1)``.

    Frame t is centred on sample ``t size / 4``; the ends of the wave are mirrored. The window is
    not normalised: the bin of a full-scale sine is ``size / 4``, cut to the root of 1000.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.window: Tensor
        self.register_buffer("window", _hann(size), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Magnitudes in float32, also under autocast; their gradient is 0 where they are cut."""
        size = len(self.window)
        require_samples(wave, size // 2 + 1, f"the STFT discriminator of FFT size {size}")
        with torch.autocast(wave.device.type, enabled=False):
            padded = nn.functional.pad(wave.float(), (size // 2, size // 2), mode="reflect")
            bins = _spectra(padded, self.window)
            power = bins.real.square() + bins.imag.square()
            return power.clamp(MIN_POWER, MAX_POWER).sqrt().mT.contiguous().unsqueeze(3)


class ComplexPicture(nn.Module):
    """Waves ``(B, 1, N)`` as real and imaginary parts ``(B, T, window / 2 + 1, 2)``.

    ``T = (N - window) // (window / 4) + 1`` frames, the first at the first sample. Divided by the
    root of the window's energy (``sqrt(0.375 window)`` for Hann): white noise of variance 1 gives
    bins of mean power 1 at every resolution.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window: Tensor
        hann = _hann(window)
        self.register_buffer("window", hann / hann.square().sum().sqrt(), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Spectra in float32, also under autocast."""
        size = len(self.window)
        require_samples(wave, size, f"the STFT discriminator of window {size}")
        with torch.autocast(wave.device.type, enabled=False):
            return torch.view_as_real(_spectra(wave.float(), self.window))


def _hann(length: int) -> Tensor:
    if length < 4 or length % 4:
        raise ConfigError(f"window {length} of an STFT discriminator is not a multiple of 4")
    return torch.hann_window(length)


def _spectra(wave: Tensor, window: Tensor) -> Tensor:
    """Frames of ``(B, 1, N)`` a quarter of the window apart: complex ``(B, T, len / 2 + 1)``."""
    frames = wave.squeeze(1).unfold(-1, len(window), len(window) // 4)
    bins: Tensor = torch.fft.rfft(frames * window)
    return bins
