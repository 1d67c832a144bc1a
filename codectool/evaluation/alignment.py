"""Find the delay of coded speech.

A parametric codec does not preserve phase, so waveforms correlate at any lag within a pitch
period. Log energies in eight bands of 500 Hz are correlated instead, which gives the delay to a few
milliseconds; where the waveforms match near that lag, they give it to the sample. Correlations of
many clips can be added, because the delay of a codec is the same for all clips.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.evaluation.metrics.base import Wave

RATE = 24000  # in Hz, of the signals
MAX_DELAY_SECONDS = 0.5  # in either direction
EXCERPT = 60 * RATE  # samples to correlate; limits memory to 0.3 GB
HOP = RATE // 1000  # samples per envelope frame: 1 ms
MAX_LAG = round(MAX_DELAY_SECONDS * 1000)  # in envelope frames
ENVELOPE_ACCURACY = 2  # in envelope frames
MIN_WAVE_CORRELATION = 0.5  # mean correlation from which waveforms count as matching
MIN_ENVELOPE_CORRELATION = 0.1  # mean correlation below which there is nothing to align

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Correlation:
    """Cross-correlation of two signals; correlations of several pairs can be added.

    Attributes:
        envelopes: ``(2 MAX_LAG + 1,)``, for lags of -500 to 500 ms.
        waves: ``(2 MAX_LAG HOP + 1,)``, for the same lags in samples at 24 kHz.
    """

    envelopes: Array
    waves: Array

    def __add__(self, other: Correlation) -> Correlation:
        return Correlation(self.envelopes + other.envelopes, self.waves + other.waves)


def correlate(reference: Wave, degraded: Wave) -> Correlation:
    """Correlate signals ``(N,)`` and ``(N',)`` at 24 kHz; of long ones, the loudest minute."""
    reference, degraded = _loudest_minute(reference, degraded)
    return Correlation(
        _correlate(_envelope(reference), _envelope(degraded), MAX_LAG),
        _correlate(reference[:, None], degraded[:, None], MAX_LAG * HOP),
    )


def find_delay(reference: Wave, degraded: Wave) -> int:
    """Return how late ``degraded`` is, in samples at 24 kHz; see `best_delay`."""
    return best_delay(correlate(reference, degraded))


def best_delay(total: Correlation, pairs: int = 1) -> int:
    """Return the delay of the second signal in samples at 24 kHz; negative if it is early.

    Where only the envelopes match, a delay within their accuracy of 2 ms counts as zero. Where
    nothing matches (silence, another recording), the delay is zero.

    Args:
        total: sum of the correlations of all pairs.
        pairs: number of pairs.
    """
    peak = int(np.argmax(total.envelopes))
    if total.envelopes[peak] < MIN_ENVELOPE_CORRELATION * pairs:
        return 0
    first = max(0, (peak - ENVELOPE_ACCURACY) * HOP)
    near = total.waves[first : (peak + ENVELOPE_ACCURACY) * HOP + 1]
    if near.max() >= MIN_WAVE_CORRELATION * pairs:
        return first + int(np.argmax(near)) - MAX_LAG * HOP
    lag = peak - MAX_LAG
    return lag * HOP if abs(lag) > ENVELOPE_ACCURACY else 0


def _loudest_minute(reference: Wave, degraded: Wave) -> tuple[Wave, Wave]:
    """Return the loudest minute of ``reference`` that both signals cover, and its counterpart."""
    starts = range(0, max(1, min(len(reference), len(degraded))), EXCERPT)
    energies = [float(np.square(reference[start : start + EXCERPT]).sum()) for start in starts]
    start = starts[int(np.argmax(energies))]
    # samples beyond the longest delay have no counterpart
    reach = MAX_LAG * HOP
    return (
        reference[start : min(start + EXCERPT, len(degraded) + reach)],
        degraded[start : min(start + EXCERPT, len(reference) + reach)],
    )


def _envelope(wave: Wave) -> Array:
    """Return zero-mean log energies ``(F, 8)`` in bands up to 4 kHz, one frame per millisecond."""
    width = 10 * HOP
    padded = np.pad(wave, (width // 2, width // 2))
    frames = np.lib.stride_tricks.sliding_window_view(padded, width)[::HOP]
    magnitude = np.abs(np.fft.rfft(frames * np.hanning(width), axis=-1))[:, :40]
    energy = np.log(magnitude.reshape(len(magnitude), 8, 5).sum(-1) + 1e-3)
    return np.asarray(energy - energy.mean(0))


def _correlate(reference: Array, degraded: Array, max_lag: int) -> Array:
    """Return the normalised cross-correlation of ``(T, D)`` and ``(T', D)``, summed over D.

    Returns:
        ``(2 max_lag + 1,)``; entry ``max_lag + d`` is for a ``degraded`` that is ``d`` rows late.
    """
    # long enough that no lag wraps around, also for signals shorter than the lags
    size = 1 << (len(reference) + len(degraded) + 2 * max_lag).bit_length()
    spectra = np.conj(np.fft.rfft(reference, size, axis=0)) * np.fft.rfft(degraded, size, axis=0)
    product = np.fft.irfft(spectra.sum(1), size)
    scale = math.sqrt(float((reference**2).sum()) * float((degraded**2).sum())) + 1e-12
    return np.asarray(np.concatenate([product[-max_lag:], product[: max_lag + 1]]) / scale)
