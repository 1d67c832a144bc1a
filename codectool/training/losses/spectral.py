"""Distances between short-time spectra, with and without mel bands.

Spectra are always computed in float32 or better, whatever autocast says, and those of the target
without a gradient.

Letters used in shapes: B batch, N samples, T frames, K bins, M bands.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torchaudio.functional as audio_functional
from torch import Tensor, nn
from torch.nn import functional as F

from codectool.errors import ConfigError
from codectool.training.losses.magnitude import magnitudes


@dataclass(frozen=True)
class MelScale:
    """One resolution of a mel spectrum.

    Frames lie inside the signal (after `padding`), windows are periodic Hann windows in the middle
    of their FFT, and the bands are triangles on Slaney's scale.

    Attributes:
        fft_size: in samples, even.
        window: in samples, at most `fft_size`.
        hop: samples from one frame to the next.
        bands: number of them.
        f_min: where the lowest band begins, in Hz.
        f_max: where the highest band ends, in Hz; None is half the sample rate.
        power: 1 takes the bands of magnitudes, 2 of their squares.
        padding: samples of reflection on both ends; None is none.
        unit_sum: whether the weights of a band sum to 1; otherwise each triangle has Slaney's unit
            area over Hz, a height of ``2 / (end - begin)``.
        full_scale: whether magnitudes are scaled by ``2 / sum(window)``, so that a sine from -1 to
            1 has a peak of 1.
        epsilon: added under the root, ``sqrt(re^2 + im^2 + epsilon)``.

    Raises:
        ConfigError: sizes that contradict each other.
    """

    fft_size: int
    window: int
    hop: int
    bands: int
    f_min: float = 0.0
    f_max: float | None = None
    power: int = 1
    padding: int | None = None
    unit_sum: bool = False
    full_scale: bool = False
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.fft_size % 2 or not 0 < self.window <= self.fft_size:
            raise ConfigError(
                f"mel scale: a window of {self.window} samples does not go with an FFT of "
                f"{self.fft_size}; the FFT must be even and at least as long as the window"
            )
        if self.hop < 1 or self.bands < 1:
            raise ConfigError(
                f"mel scale: hop ({self.hop}) and bands ({self.bands}) must be at least 1"
            )
        if self.power not in (1, 2):
            raise ConfigError(f"mel scale: power must be 1 or 2, not {self.power}")


class Spectrum(nn.Module):
    """Spectra ``(B, T, K)`` of signals ``(B, N)``, without bands; arguments as in `MelScale`."""

    def __init__(
        self,
        fft_size: int,
        window: int,
        hop: int,
        *,
        padding: int = 0,
        full_scale: bool = False,
        epsilon: float = 0.0,
        power: int = 1,
    ) -> None:
        super().__init__()
        self.fft_size, self.hop = fft_size, hop
        self.padding, self.epsilon, self.power = padding, epsilon, power
        shape = torch.hann_window(window, dtype=torch.float64)
        if full_scale:
            shape = shape * 2 / shape.sum()
        self.window: Tensor
        self.register_buffer("window", shape.float(), persistent=False)

    def forward(self, signal: Tensor, shortened: bool = False) -> Tensor:
        """Analyse ``(B, N)``.

        Args:
            signal: ``(B, N)``.
            shortened: transform the same frames by an FFT of twice the window, in float64.

        Raises:
            ConfigError: the signal is shorter than an FFT.
        """
        num_samples = signal.shape[-1]
        needed = max(self.fft_size - 2 * self.padding, self.padding + 1)
        if num_samples < needed:
            raise ConfigError(
                f"{num_samples} samples are too few for a spectral loss with an FFT of "
                f"{self.fft_size}: use crops of at least {needed} samples or a smaller FFT"
            )
        if self.padding:
            signal = F.pad(signal, (self.padding, self.padding), mode="reflect")
        # A window in the middle of its FFT has the magnitudes of one at its start: only the
        # frames move. What the first and last FFT would not cover with their windows is cut.
        length = len(self.window)
        first = (self.fft_size - length) // 2
        num_frames = (signal.shape[-1] - self.fft_size) // self.hop + 1
        signal = signal[:, first : first + (num_frames - 1) * self.hop + length]
        window, fft_size = self.window, self.fft_size
        if shortened:
            signal, window, fft_size = signal.double(), window.double(), 2 * length
        return magnitudes(signal, window, fft_size, self.hop, self.epsilon, self.power)


def mel_bands(scale: MelScale, sample_rate: int) -> Tensor:
    """Weights ``(K, M)`` of the bands of a scale.

    Bands too narrow to hold a bin stay empty: their spectrum is always 0, which costs nothing.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero")
        bands: Tensor = audio_functional.melscale_fbanks(
            n_freqs=scale.fft_size // 2 + 1,
            f_min=scale.f_min,
            f_max=sample_rate / 2 if scale.f_max is None else scale.f_max,
            n_mels=scale.bands,
            sample_rate=sample_rate,
            norm=None if scale.unit_sum else "slaney",
            mel_scale="slaney",
        )
    if scale.unit_sum:
        total = bands.sum(0)
        bands = bands / torch.where(total > 0, total, 1.0)
    return bands


def shortened_bands(bands: Tensor, window: int) -> Tensor:
    """Bands over the power spectrum of a long FFT as bands over that of a short one.

    The power spectrum of W samples is a sum of 2 W - 1 exponentials,

        P(w) = sum over |l| < W of r_l exp(-i w l),

    r being their autocorrelation, so 2 W points of P tell all others: an FFT of 2 W gives r, and r
    gives P at the bins of any longer FFT that the samples are filled up to with zeros. All of this
    is linear, and so is summing bins into bands. A window of 32 in an FFT of 1024 takes a fifteenth
    of the bins.

    Weights come out on both sides of zero: weak bands are small differences of strong bins, as much
    weaker as float32 is exact (70 dB). Hence float64.

    Args:
        bands: ``(K, M)``, K bins of an FFT of at least 2 W.
        window: W.

    Returns:
        float64 ``(W + 1, M)``.
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


class MelSpectrum(nn.Module):
    """Mel spectra ``(B, T, M)`` of signals ``(B, N)``, both float32, not logarithmic."""

    def __init__(self, scale: MelScale, sample_rate: int) -> None:
        super().__init__()
        self.spectrum = Spectrum(
            scale.fft_size,
            scale.window,
            scale.hop,
            padding=scale.padding or 0,
            full_scale=scale.full_scale,
            epsilon=scale.epsilon,
            power=scale.power,
        )
        self.bands: Tensor
        self.register_buffer("bands", mel_bands(scale, sample_rate), persistent=False)
        # numbers of twice the size in half as many bins would save nothing
        self.shortened = scale.power == 2 and 4 * scale.window < scale.fft_size
        self._short_bands: Tensor | None = None  # no buffer: not every device knows float64

    def forward(self, signal: Tensor) -> Tensor:
        """Analyse ``(B, N)``."""
        if not self.shortened or signal.device.type == "mps":
            spectrum: Tensor = self.spectrum(signal)
            return spectrum @ self.bands
        if self._short_bands is None or self._short_bands.device != signal.device:
            self._short_bands = shortened_bands(self.bands, len(self.spectrum.window))
        mel: Tensor = self.spectrum(signal, shortened=True) @ self._short_bands
        return mel.float()


class LogMelDistance(nn.Module):
    """Distance of logarithmic mel spectra at several resolutions.

        L = log(max(mel, floor)),  distance = sum over scales of mean |L_y - L_x|
                                                + squared mean (L_y - L_x)^2

    Args:
        sample_rate: in Hz.
        scales: the resolutions.
        floor: smaller values of the bands are raised to it.
        natural_log: natural instead of decimal logarithm.
        squared: weight of the mean square.
        mean: whether to take the mean over scales instead of the sum.

    Raises:
        ConfigError: no scale; in `forward`, signals shorter than an FFT.
    """

    def __init__(
        self,
        sample_rate: int,
        scales: Sequence[MelScale],
        floor: float = 1e-5,
        natural_log: bool = False,
        squared: float = 0.0,
        mean: bool = False,
    ) -> None:
        super().__init__()
        if not scales:
            raise ConfigError("a mel loss needs at least one scale")
        self.spectra = nn.ModuleList(MelSpectrum(scale, sample_rate) for scale in scales)
        self.floor = floor
        self.natural_log = natural_log
        self.squared = squared
        self.mean = mean

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance of ``(B, 1, N)`` from ``(B, 1, N)``, a scalar."""
        with torch.autocast(output.device.type, enabled=False):
            y, x = output.squeeze(1).float(), target.detach().squeeze(1).float()
            total = y.new_zeros(())
            for spectrum in self.spectra:
                log_y, log_x = self._log(spectrum(y)), self._log(spectrum(x))
                total = total + F.l1_loss(log_y, log_x)
                if self.squared:
                    total = total + self.squared * F.mse_loss(log_y, log_x)
            return total / len(self.spectra) if self.mean else total

    def _log(self, mel: Tensor) -> Tensor:
        mel = mel.clamp(min=self.floor)
        return mel.log() if self.natural_log else mel.log10()


HAC_WINDOWS = (2048, 1024, 512, 256, 128)


def hac_mel(sample_rate: int) -> LogMelDistance:
    """HAC's mel loss, ver. 01: mean over five windows of the distance of decimal logarithms.

    A full-scale sine is 1 and the floor is -80 dBFS on purpose: at -100 dBFS the tone of a quiet
    room would cost as much as speech. Source: our design, after HILCodec (arXiv 2405.04752).
    """
    scales = [
        MelScale(window, window, window // 4, bands, unit_sum=True, full_scale=True)
        for window, bands in zip(HAC_WINDOWS, (128, 80, 48, 24, 12), strict=True)
    ]
    return LogMelDistance(sample_rate, scales, floor=1e-4, mean=True)


def bigcodec_mel(sample_rate: int) -> LogMelDistance:
    """BigCodec's mel loss (arXiv 2409.05377): sum over seven windows from 32 to 2048.

    Magnitudes, decimal logarithms, frames centred by reflection.
    """
    scales = [
        MelScale(32 * n, 32 * n, 8 * n, bands=5 * n, padding=16 * n)
        for n in (1, 2, 4, 8, 16, 32, 64)
    ]
    return LogMelDistance(sample_rate, scales)


def supercodec_mel(sample_rate: int) -> LogMelDistance:
    """SuperCodec's mel loss: one resolution of 80 bands, natural logarithms, as in HiFi-GAN.

    Magnitudes are ``sqrt(re^2 + im^2 + 1e-9)``; bands reach to half the rate (arXiv 2010.05646).
    """
    scale = MelScale(1024, 640, 160, 80, padding=432, epsilon=1e-9)
    return LogMelDistance(sample_rate, [scale], natural_log=True)


def supercodec_spectral(sample_rate: int) -> LogMelDistance:
    """SuperCodec's spectral loss: sum over windows 32 to 1024, all in an FFT of 1024.

    64 bands of the power up to 8 kHz, mean distance and mean square of decimal logarithms. The
    bands follow the true rate; upstream takes 16 kHz whatever it is.
    """
    scales = [
        MelScale(
            fft_size=1024,
            window=window,
            hop=window // 4,
            bands=64,
            f_max=min(8000.0, sample_rate / 2),
            power=2,
            padding=(1024 - window // 4) // 2,
        )
        for window in (32, 64, 128, 256, 512, 1024)
    ]
    return LogMelDistance(sample_rate, scales, squared=1.0)


class StftDistance(nn.Module):
    """HAC's spectral loss, ver. 02: magnitudes without bands, in their logarithm and as they are.

        mean |log10 max(|Y|, floor) - log10 max(|X|, floor)| + 0.2 || |Y| - |X| ||_F / || X ||_F

    the mean over the windows, each with a hop of a quarter and a full-scale sine of 1. The pair is
    that of Parallel WaveGAN (arXiv 1910.11480, section 2.2), with its weights changed. The ratio
    is taken for each item by itself, so that the loss of a batch is the mean of its items' losses;
    the norm of a target below the floor everywhere is taken to be that of the floor.

    Args:
        windows: in samples, even.
        floor: smaller magnitudes are raised to it before the logarithm is taken.
        convergence: weight of the ratio.

    Raises:
        ConfigError: no window; in `forward`, signals shorter than a window.
    """

    def __init__(
        self,
        windows: Sequence[int] = HAC_WINDOWS,
        floor: float = 1e-4,
        convergence: float = 0.2,
    ) -> None:
        super().__init__()
        if not windows:
            raise ConfigError("an STFT loss needs at least one window")
        self.spectra = nn.ModuleList(
            Spectrum(window, window, window // 4, full_scale=True) for window in windows
        )
        self.floor = floor
        self.convergence = convergence

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distance of ``(B, 1, N)`` from ``(B, 1, N)``, a scalar."""
        with torch.autocast(output.device.type, enabled=False):
            y, x = output.squeeze(1).float(), target.detach().squeeze(1).float()
            total = y.new_zeros(())
            for spectrum in self.spectra:
                total = total + self._distance(spectrum(y), spectrum(x))
            return total / len(self.spectra)

    def _distance(self, size_y: Tensor, size_x: Tensor) -> Tensor:
        log_y, log_x = (size.clamp(min=self.floor).log10() for size in (size_y, size_x))
        error = torch.linalg.vector_norm(size_y - size_x, dim=(1, 2))
        smallest = self.floor * size_x[0].numel() ** 0.5
        whole = torch.linalg.vector_norm(size_x, dim=(1, 2)).clamp(min=smallest)
        ratio: Tensor = (error / whole).mean()
        return F.l1_loss(log_y, log_x) + self.convergence * ratio


def validation_scales(sample_rate: int) -> list[MelScale]:
    """Resolutions of `mel_distance_db`: windows of 10.7 to 85.3 ms with 20 to 128 bands."""
    scales = []
    for window_24k, bands in ((256, 20), (512, 40), (1024, 80), (2048, 128)):
        window = 2 * round(window_24k * sample_rate / 24000 / 2)
        scales.append(MelScale(window, window, window // 4, bands, unit_sum=True, full_scale=True))
    return scales


@torch.no_grad()
def mel_distance_db(output: Tensor, reference: Tensor, sample_rate: int) -> Tensor:
    """Mean distance of mel spectra in dB, the figure of validation.

    Mean over four windows of the mean ``|20 log10 max(mel_y, 1e-4) - 20 log10 max(mel_x, 1e-4)|``;
    bands have weights that sum to 1, and a sine from -1 to 1 is 0 dB.

    Args:
        output: float ``(B, 1, N)``.
        reference: float ``(B, 1, N)``.
        sample_rate: in Hz; the windows keep their duration.

    Returns:
        float32 ``(B,)``, 0 for equal signals. Signals shorter than a window are continued by zeros.
    """
    signals = torch.cat([output, reference]).squeeze(1).float()
    total = signals.new_zeros(len(output))
    with torch.autocast(signals.device.type, enabled=False):
        for scale in validation_scales(sample_rate):
            missing = max(0, scale.fft_size - signals.shape[-1])
            spectrum = MelSpectrum(scale, sample_rate).to(signals.device)
            level = 20 * spectrum(F.pad(signals, (0, missing))).clamp(min=1e-4).log10()
            level_y, level_x = level.chunk(2)
            total += (level_y - level_x).abs().mean(dim=(1, 2)) / 4
    return total
