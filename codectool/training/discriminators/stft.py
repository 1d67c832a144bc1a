"""Discriminators on short-time spectra: on magnitudes, or on real and imaginary parts.

All windows are Hann windows and a hop is a quarter of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.errors import ConfigError
from codectool.schema import Size, Sizes
from codectool.training.discriminators.base import (
    Discriminator,
    DiscriminatorConfig,
    SubDiscriminator,
    require_samples,
)

SLOPE = 0.2
MAGNITUDE_STRIDES = (2, 2, 2, 2, 1)
DILATIONS = (1, 2, 4)  # over time, of the three middle layers on complex spectra
MIN_POWER, MAX_POWER = 1e-7, 1e3
ONEDNN_BLOCK = 16  # channels that oneDNN processes at once


class MagnitudeStftConfig(DiscriminatorConfig, tag="magnitude_stft", frozen=True):
    """Multi-resolution discriminator on magnitude spectra (BigCodec, arXiv 2409.05377).

    Attributes:
        fft_sizes: window lengths in samples, one network each; multiples of 4.
        channels: width of the first layer; widths double from layer to layer.
        max_channels: largest width.
    """

    fft_sizes: Sizes = (128, 256, 512, 1024, 2048)
    channels: Size = 32
    max_channels: Size = 512

    def __post_init__(self) -> None:
        _check_windows(self.fft_sizes)

    @override
    def build(self) -> Discriminator:
        return Discriminator([self._member(size) for size in self.fft_sizes])

    def _member(self, size: int) -> SubDiscriminator:
        widths = [
            min(self.channels * 2**depth, self.max_channels)
            for depth in range(len(MAGNITUDE_STRIDES))
        ]
        kernels = (5, 5, 5, 5, 3)
        layers = zip([1, *widths], widths, kernels, MAGNITUDE_STRIDES, strict=False)
        hidden = [
            nn.Conv2d(before, width, kernel, stride, padding=kernel // 2)
            for before, width, kernel, stride in layers
        ]
        last = nn.Conv2d(widths[-1], 1, 3, padding=1)
        return SubDiscriminator(MagnitudeImage(size), hidden, last, SLOPE)


class ComplexStftConfig(DiscriminatorConfig, tag="complex_stft", frozen=True):
    """Multi-scale discriminator on complex spectra (EnCodec, arXiv 2210.13438, section 3.4).

    Attributes:
        windows: window lengths in samples, one network each; multiples of 4.
        channels: widths of the five hidden layers. They are equal in SuperCodec, and F, F, 2F, 4F,
            8F in HAC.
        norm_first: use weight norm in the first layer, as in all others; SuperCodec does not.
    """

    windows: Sizes = (512, 1024, 2048)
    channels: Sizes = (8, 8, 16, 32, 64)
    norm_first: bool = True

    def __post_init__(self) -> None:
        _check_windows(self.windows)
        if len(self.channels) != 5:
            raise ConfigError(
                f"channels has {len(self.channels)} widths; the complex STFT discriminator has 5 "
                "hidden layers"
            )

    @override
    def build(self) -> Discriminator:
        return Discriminator([self._member(window) for window in self.windows])

    def _member(self, window: int) -> SubDiscriminator:
        channels = self.channels
        first = nn.Conv2d(2, channels[0], (3, 9), padding=(1, 4))
        middle = [
            DilatedConv2d(
                before, width, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1)
            )
            for before, width, dilation in zip(channels, channels[1:], DILATIONS, strict=False)
        ]
        fifth = nn.Conv2d(channels[3], channels[4], 3, padding=1)
        last = nn.Conv2d(channels[4], 1, 3, padding=1)
        hidden = [first, *middle, fifth]
        return SubDiscriminator(ComplexImage(window), hidden, last, SLOPE, self.norm_first)


class DilatedConv2d(nn.Conv2d):
    """Convolution that also has right gradients in bfloat16 on a CPU.

    With dilation over the height and channels last in memory, oneDNN reads beyond the channels of
    an input that has more than 16 of them, but not a multiple of 16. The gradients of the weights
    become NaN or wrong, or the process crashes. So zeros are appended to the channels.
    """

    @override
    def forward(self, x: Tensor) -> Tensor:
        missing = -self.in_channels % ONEDNN_BLOCK
        on_cpu = x.dtype == torch.bfloat16 and x.device.type == "cpu"
        if not (on_cpu and missing and self.in_channels > ONEDNN_BLOCK):
            return super().forward(x)
        x, weight = (F.pad(tensor, (0, 0, 0, 0, 0, missing)) for tensor in (x, self.weight))
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation)


class MagnitudeImage(nn.Module):
    """Waves ``(B, 1, N)`` as magnitudes ``(B, size / 2 + 1, N // (size / 4) + 1, 1)``.

    Frame t is centred on sample ``t size / 4``; the wave is reflected at both ends. The window is
    not normalized: the bin of a full-scale sine is ``size / 4``, clipped to the root of 1000.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(size), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Return magnitudes in float32, also under autocast; no gradient where they are clipped."""
        size = len(self.window)
        require_samples(wave, size // 2 + 1, f"the STFT discriminator of FFT size {size}")
        with torch.autocast(wave.device.type, enabled=False):
            padded = F.pad(wave.float(), (size // 2, size // 2), mode="reflect")
            bins = _spectra(padded, self.window)
            power = bins.real.square() + bins.imag.square()
            return power.clamp(MIN_POWER, MAX_POWER).sqrt().mT.contiguous().unsqueeze(3)


class ComplexImage(nn.Module):
    """Waves ``(B, 1, N)`` as real and imaginary parts ``(B, T, window / 2 + 1, 2)``.

    ``T = (N - window) // (window / 4) + 1`` frames, not centred, so that no sample is seen twice.
    Divided by the root of the window's energy (``sqrt(0.375 window)`` for Hann): white noise of
    variance 1 gives bins of mean power 1 at every resolution. Time keeps its resolution in the
    convolutions, frequency is halved three times.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window: Tensor
        hann = torch.hann_window(window)
        self.register_buffer("window", hann / hann.square().sum().sqrt(), persistent=False)

    def forward(self, wave: Tensor) -> Tensor:
        """Return spectra in float32, also under autocast."""
        size = len(self.window)
        require_samples(wave, size, f"the STFT discriminator of window {size}")
        with torch.autocast(wave.device.type, enabled=False):
            return torch.view_as_real(_spectra(wave.float(), self.window))


def _check_windows(windows: tuple[int, ...]) -> None:
    for length in windows:
        if length < 4 or length % 4:
            raise ConfigError(f"window {length} of an STFT discriminator is not a multiple of 4")


def _spectra(wave: Tensor, window: Tensor) -> Tensor:
    """Frames of ``(B, 1, N)`` a quarter of the window apart: complex ``(B, T, len / 2 + 1)``."""
    frames = wave.squeeze(1).unfold(-1, len(window), len(window) // 4)
    bins: Tensor = torch.fft.rfft(frames * window)
    return bins
