"""Short-time spectra in decibels, as the distances of spectra here want them.

Letters used in shapes: N samples, T short-time frames, B bins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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
