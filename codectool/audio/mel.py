"""Magnitude spectra and log-mel spectrograms in NumPy."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

RATE = 24000  # default sampling rate of log-mel spectrograms, in Hz
MIN_AMPLITUDE = 1e-4  # -80 dB re full scale

Array = npt.NDArray[np.floating[Any]]


def stft_magnitudes(wave: Array, window: int, hop: int) -> Array:
    """Return STFT magnitudes, scaled so that a sine at full scale has magnitude 1.

    The window is a periodic Hann window. Frames lie within the signal, which is padded with zeros
    if it is shorter than one window.

    Args:
        wave: ``(N,)`` in [-1, 1].
        window: window length, in samples.
        hop: samples between frames.

    Returns:
        ``(1 + (N - window) // hop, 1 + window / 2)``.
    """
    wave = np.pad(np.asarray(wave, float), (0, max(0, window - len(wave))))
    hann = np.hanning(window + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    return np.asarray(np.abs(np.fft.rfft(frames * hann, axis=-1)) * 2 / hann.sum())


def amplitude_to_db(amplitude: Array) -> Array:
    """Convert to dB re full scale, limited to -80 dB from below."""
    return np.asarray(20 * np.log10(np.maximum(amplitude, MIN_AMPLITUDE)))


def log_mel(
    wave: Array, window: int, bands: int, hop: int | None = None, rate: int = RATE
) -> Array:
    """Return the log-mel spectrogram of a signal, in dB re full scale, at least -80.

    Args:
        wave: ``(N,)`` in [-1, 1].
        window: window length, in samples; see `stft_magnitudes`.
        bands: number of mel bands.
        hop: samples between frames; None is a quarter of the window.
        rate: sampling rate, in Hz.

    Returns:
        ``(1 + (N - window) // hop, bands)``.
    """
    magnitudes = stft_magnitudes(wave, window, hop or window // 4)
    return amplitude_to_db(magnitudes @ mel_filterbank(window, bands, rate).T)


def mel_power(wave: Array, window: int, bands: int, hop: int, rate: int) -> Array:
    """Return a mel power spectrogram, as librosa's ``feature.melspectrogram`` does by default.

    Frames are centred at multiples of the hop; the signal is padded with zeros. Bands are Slaney's,
    from 0 to half the rate, each of unit area.

    Args:
        wave: ``(N,)``.
        window: window length, in samples.
        bands: number of bands.
        hop: samples between frames.
        rate: sampling rate, in Hz.

    Returns:
        ``(1 + (N + 2 * (window // 2) - window) // hop, bands)``.
    """
    scale = np.hanning(window + 1)[:-1].sum() / 2  # of a sine in the unscaled spectrum
    magnitudes = scale * stft_magnitudes(np.pad(wave, window // 2), window, hop)
    corners = mel_frequencies(rate / 2, bands)
    bins = np.arange(window // 2 + 1) * rate / window
    filters = unit_area_filters(bins, corners)
    return np.asarray(magnitudes**2 @ filters.T)


@cache
def mel_filterbank(window: int, bands: int, rate: int = RATE) -> Array:
    """Return triangular filters from 0 to half the rate, each normalized to sum to 1.

    Returns:
        ``(bands, 1 + window / 2)``.
    """
    bins = np.arange(window // 2 + 1) * rate / window
    filters = triangular_filters(bins, mel_frequencies(rate / 2, bands))
    return np.asarray(filters / filters.sum(axis=1, keepdims=True))


def mel_frequencies(top: float, bands: int, bottom: float = 0.0) -> Array:
    """Return the corners of mel bands from ``bottom`` to ``top`` Hz: ``(bands + 2,)`` in Hz."""
    mel = np.linspace(hz_to_mel(bottom), hz_to_mel(top), bands + 2)
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))


def triangular_filters(bins: Array, corners: Array) -> Array:
    """Return triangles of height 1, each from one corner to the next but one.

    Args:
        bins: frequencies at which the filters are evaluated, in the unit of ``corners``.
        corners: ``(bands + 2,)`` in ascending order.

    Returns:
        ``(bands, len(bins))``.
    """
    rows = []
    for low, (centre, high) in zip(corners, pairwise(corners[1:]), strict=False):
        rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
        rows.append(np.maximum(0, np.minimum(rise, fall)))
    return np.stack(rows)


def unit_area_filters(bins: Array, corners: Array) -> Array:
    """Return the triangles of `triangular_filters` with Slaney's area of 1, ``(bands, bins)``."""
    return triangular_filters(bins, corners) * 2 / (corners[2:] - corners[:-2])[:, None]


def hz_to_mel(hertz: float) -> float:
    """Convert to Slaney's mel scale: 66.7 Hz per mel up to 1 kHz, logarithmic above."""
    if hertz < 1000:
        return hertz * 3 / 200
    return 15 + 27 * math.log(hertz / 1000) / math.log(6.4)
