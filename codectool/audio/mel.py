"""Short-time spectra and log-mel spectrograms in NumPy.

Letters used in shapes: N samples, T short-time frames, B bins, M mel bands.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

RATE = 24000
FLOOR = 1e-4  # of full scale: what is below -80 dB counts as silence

Array = npt.NDArray[np.floating[Any]]


def magnitudes(wave: Array, window: int, hop: int) -> Array:
    """Magnitudes of ``(N,)``, of which those of a sine at full scale reach 1.

    Periodic Hann window; frames lie wholly within the signal, which is filled up to one window at
    least.

    Args:
        wave: in [-1, 1].
        window: in samples.
        hop: samples from frame to frame.

    Returns:
        ``(T, B)`` with ``T = 1 + (N - window) // hop`` and ``B = 1 + window / 2``.
    """
    wave = np.pad(np.asarray(wave, float), (0, max(0, window - len(wave))))
    hann = np.hanning(window + 1)[:-1]
    pieces = np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]
    return np.asarray(np.abs(np.fft.rfft(pieces * hann, axis=-1)) * 2 / hann.sum())


def decibels(magnitude: Array) -> Array:
    """In dB of full scale, at least -80."""
    return np.asarray(20 * np.log10(np.maximum(magnitude, FLOOR)))


def log_mel(wave: Array, window: int, bands: int, hop: int | None = None) -> Array:
    """Log-mel spectrogram in dB, of ``(N,)`` at 24 kHz.

    Periodic Hann window, magnitudes of which a sine at full scale reaches 1; frames lie wholly
    within the signal, which is filled up to one window at least.

    Args:
        wave: in [-1, 1].
        window: in samples.
        bands: mel bands M.
        hop: samples from frame to frame; None is a quarter of the window.

    Returns:
        ``(T, M)`` with ``T = 1 + (N - window) // hop``, at least -80 dB.
    """
    magnitude = magnitudes(wave, window, hop or window // 4)
    return decibels(magnitude @ mel_bands(window, bands).T)


@cache
def mel_bands(window: int, bands: int) -> Array:
    """Triangular bands ``(M, window / 2 + 1)`` from 0 to 12 kHz, each of which sums to 1.

    Their corners are equally spaced in Slaney's mel: a mel is 66.7 Hz below 1 kHz, and 27 of them
    are a factor of 6.4 above.
    """
    bins = np.arange(window // 2 + 1) * RATE / window
    filters = triangles(bins, mel_corners(RATE / 2, bands))
    return np.asarray(filters / filters.sum(axis=1, keepdims=True))


def mel_corners(top: float, bands: int) -> Array:
    """Where triangles from 0 to ``top`` Hz begin, peak and end: ``(bands + 2,)`` in Hz."""
    return mel_to_hertz(np.linspace(0, hertz_to_mel(top), bands + 2))


def triangles(bins: Array, corners: Array) -> Array:
    """A triangle of height 1 between each corner ``(M + 2,)`` and its next but one.

    Args:
        bins: ``(B,)``, where it is read, in the unit of the corners.
        corners: in ascending order.

    Returns:
        ``(M, B)``.
    """
    rows = []
    for low, (centre, high) in zip(corners, pairwise(corners[1:]), strict=False):
        rise, fall = (bins - low) / (centre - low), (high - bins) / (high - centre)
        rows.append(np.maximum(0, np.minimum(rise, fall)))
    return np.stack(rows)


def hertz_to_mel(hertz: float) -> float:
    """Slaney's mel."""
    if hertz < 1000:
        return hertz * 3 / 200
    return 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def mel_to_hertz(mel: Array) -> Array:
    """Undo `hertz_to_mel`."""
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
