"""Mel loss: distance of logarithmic mel spectra at several resolutions."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from codectool.audio.mel import mel_frequencies, triangular_filters, unit_area_filters
from codectool.errors import ConfigError
from codectool.schema import MAX_SIZE, NonNegativeFloat, PositiveFloat, Sizes
from codectool.training.losses.base import BandLossConfig, Loss
from codectool.training.losses.spectrum import Spectrum


class MelLossConfig(BandLossConfig, tag="mel", frozen=True, kw_only=True):
    """Distance of logarithmic mel spectra at several resolutions.

    Attributes:
        windows: lengths of the Hann windows in samples.
        bands: number of mel bands for each window.
        fft_size: size of all FFTs in samples; null for the length of each window.
        hops: hop for each window in samples; null for a quarter of the window.
        f_min: lower edge of the lowest band in Hz.
        f_max: upper edge of the highest band in Hz; null for half the sampling rate.
        power: 1 for magnitude spectra, 2 for power spectra.
        padding: reflection at both ends: ``"none"``, ``"centre"`` (half an FFT), or ``"same"`` (one
            frame per hop).
        unit_sum: normalize each band to weights that sum to 1, instead of Slaney's unit area.
        full_scale: scale spectra so that a full-scale sine has magnitude 1.
        epsilon: added to the power before the root is taken.
        floor: smaller values are raised to it before the logarithm.
        natural_log: use natural instead of decimal logarithms.
        squared: weight of the mean squared difference, added to the mean absolute difference.
        mean: take the mean over windows instead of the sum.
    """

    windows: Annotated[tuple[Annotated[int, Meta(ge=4, le=MAX_SIZE)], ...], Meta(min_length=1)]
    bands: Sizes
    fft_size: int | None = None
    hops: Sizes | None = None
    power: Literal[1, 2] = 1
    padding: Literal["none", "centre", "same"] = "none"
    unit_sum: bool = False
    full_scale: bool = False
    epsilon: NonNegativeFloat = 0.0
    floor: PositiveFloat = 1e-5
    natural_log: bool = False
    squared: NonNegativeFloat = 0.0
    mean: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in (("bands", self.bands), ("hops", self.hops)):
            if values is not None and len(values) != len(self.windows):
                raise ConfigError(f"windows and {name} differ in length")
        if self.fft_size is not None and not max(self.windows) <= self.fft_size <= MAX_SIZE:
            raise ConfigError(
                f"fft_size {self.fft_size} is shorter than a window, or above {MAX_SIZE}"
            )
        transforms = self.windows if self.fft_size is None else (self.fft_size,)
        if any(size % 2 for size in transforms):
            raise ConfigError("FFT sizes must be even")

    @override
    def build(self, sample_rate: int) -> MelLoss:
        return MelLoss(self, sample_rate)


class MelLoss(Loss):
    """Distance of logarithmic mel spectra at several resolutions.

    L = log(max(mel, floor)),  distance = sum over windows of mean |L_y - L_x|
                                            + squared mean (L_y - L_x)^2
    """

    def __init__(self, config: MelLossConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        hops = config.hops or [max(1, window // 4) for window in config.windows]
        sizes = zip(config.windows, config.bands, hops, strict=True)
        self.spectra = nn.ModuleList(self._spectrum(*size, sample_rate) for size in sizes)

    def _spectrum(self, window: int, num_bands: int, hop: int, sample_rate: int) -> MelSpectrum:
        config = self.config
        fft_size = config.fft_size or window
        padding = {"none": 0, "centre": fft_size // 2, "same": (fft_size - hop) // 2}
        spectrum = Spectrum(
            fft_size,
            window,
            hop,
            padding=padding[config.padding],
            full_scale=config.full_scale,
            epsilon=config.epsilon,
            power=config.power,
        )
        limits = config.f_min, config.f_max
        return MelSpectrum(
            spectrum, mel_bands(fft_size, num_bands, sample_rate, *limits, config.unit_sum)
        )

    @override
    def distance(self, output: Tensor, target: Tensor) -> Tensor:
        total = output.new_zeros(())
        for spectrum in self.spectra:
            log_y, log_x = self._log(spectrum(output)), self._log(spectrum(target))
            total = total + F.l1_loss(log_y, log_x)
            if self.config.squared:
                total = total + self.config.squared * F.mse_loss(log_y, log_x)
        return total / len(self.spectra) if self.config.mean else total

    def _log(self, mel: Tensor) -> Tensor:
        mel = mel.clamp(min=self.config.floor)
        return mel.log() if self.config.natural_log else mel.log10()


class MelSpectrum(nn.Module):
    """Mel spectra ``(B, T, M)`` of signals ``(B, N)``, not logarithmic."""

    bands: Tensor  # (K, M) for spectra of K bins

    def __init__(self, spectrum: Spectrum, bands: Tensor) -> None:
        super().__init__()
        self.spectrum = spectrum
        self.register_buffer("bands", bands, persistent=False)
        # float64 values in half as many bins would save nothing
        self.shortened = spectrum.power == 2 and 4 * len(spectrum.window) < spectrum.fft_size
        self._short_bands: Tensor | None = None  # no buffer: not every device has float64

    def forward(self, signal: Tensor) -> Tensor:
        """Return the mel spectra of ``(B, N)``, float32."""
        if not self.shortened or signal.device.type == "mps":
            spectrum: Tensor = self.spectrum(signal)
            return spectrum @ self.bands
        if self._short_bands is None or self._short_bands.device != signal.device:
            self._short_bands = shortened_bands(self.bands, len(self.spectrum.window))
        mel: Tensor = self.spectrum(signal, shortened=True) @ self._short_bands
        return mel.float()


def mel_bands(
    fft_size: int,
    num_bands: int,
    sample_rate: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    unit_sum: bool = False,
) -> Tensor:
    """Return the weights ``(fft_size / 2 + 1, M)`` of triangular bands on Slaney's mel scale.

    With `unit_sum` the weights of a band sum to 1; else each triangle has Slaney's unit area over
    Hz, a height of ``2 / (end - begin)``. Bands too narrow to hold a bin stay empty: their spectrum
    is always 0, which costs nothing.
    """
    bins = np.arange(fft_size // 2 + 1) * sample_rate / fft_size
    corners = mel_frequencies(sample_rate / 2 if f_max is None else f_max, num_bands, f_min)
    if unit_sum:
        bands = triangular_filters(bins, corners)
        total = bands.sum(axis=1, keepdims=True)
        bands = bands / np.where(total > 0, total, 1.0)
    else:
        bands = unit_area_filters(bins, corners)
    return torch.from_numpy(bands.T.copy()).float()


def shortened_bands(bands: Tensor, window: int) -> Tensor:
    """Convert bands over the power spectrum of a long FFT to bands over a short FFT.

    The power spectrum of W samples is a sum of 2 W - 1 exponentials,

        P(w) = sum over |l| < W of r_l exp(-i w l),

    r being their autocorrelation, so 2 W points of P determine all others: an FFT of 2 W gives r,
    and r gives P at the bins of any longer FFT of the samples padded with zeros. All of this is
    linear, and so is summing bins into bands. A window of 32 in an FFT of 1024 then takes a
    fifteenth of the bins.

    The weights have both signs: weak bands are small differences of strong bins, down to the
    precision of float32 (70 dB). Hence float64: ``(W + 1, M)`` of ``(K, M)``.
    """
    long = 2 * (len(bands) - 1)
    lags = torch.arange(window, dtype=torch.float64, device=bands.device)
    bins = torch.arange(len(bands), dtype=torch.float64, device=bands.device)
    cosines = torch.cos(2 * torch.pi / long * torch.outer(lags, bins))
    cosines[1:] *= 2  # lags on both sides
    points = torch.eye(window + 1, dtype=torch.float64, device=bands.device)
    autocorrelation = torch.fft.irfft(points)[:, :window]
    weights: Tensor = autocorrelation @ cosines @ bands.double()
    return weights
