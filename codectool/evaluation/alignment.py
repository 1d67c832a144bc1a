"""By how much coded speech is late.

A parametric codec makes the phase anew, so that waveforms correlate anywhere within a pitch period.
The log energies of eight bands of 500 Hz are correlated instead, which gives the millisecond; where
the waveforms do match around it, they give the sample. Correlations of many clips can be added up:
a codec's delay is the same in all of them.

Letters used in shapes: N samples, T rows of an envelope, L lags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from codectool.evaluation.metrics.base import Wave

RATE = 24000  # of the signals that are compared here
LONGEST_SECONDS = 0.5  # either way
EXCERPT = 60 * RATE  # samples that are enough to find a delay; bounds memory to 0.3 GB
STEP = RATE // 1000  # samples from row to row of an envelope: 1 ms
ROWS = round(LONGEST_SECONDS * 1000)
ACCURACY_ROWS = 2  # what envelopes alone can tell
LIKE = 0.5  # mean correlation from which waveforms match
ALIKE_AT_ALL = 0.1  # mean correlation of envelopes below which there is nothing to align

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Correlation:
    """How well two signals match when one is moved.

    Attributes:
        envelopes: ``(2 ROWS + 1,)``, by milliseconds from -500 to 500.
        waves: ``(2 ROWS STEP + 1,)``, by samples at 24 kHz.
    """

    envelopes: Array
    waves: Array

    def __add__(self, other: Correlation) -> Correlation:
        """Both together, as of a longer signal."""
        return Correlation(self.envelopes + other.envelopes, self.waves + other.waves)


def correlate(reference: Wave, degraded: Wave) -> Correlation:
    """Correlate two signals ``(N,)`` and ``(N',)`` at 24 kHz; of long ones, the loudest minute."""
    reference, degraded = _loudest_minute(reference, degraded)
    return Correlation(
        _correlate(_envelope(reference), _envelope(degraded), ROWS),
        _correlate(reference[:, None], degraded[:, None], ROWS * STEP),
    )


def find_delay(reference: Wave, degraded: Wave) -> int:
    """Samples at 24 kHz by which ``degraded`` is late; see `best_delay`."""
    return best_delay(correlate(reference, degraded))


def best_delay(found: Correlation, pairs: int = 1) -> int:
    """Samples at 24 kHz at which signals match best; negative if the second ones are early.

    Where only the envelopes match, a delay within their accuracy of 2 ms counts as none, and where
    nothing matches (silence, another recording), there is none.

    Args:
        found: sum of the correlations of all pairs.
        pairs: how many there are.
    """
    peak = int(np.argmax(found.envelopes))
    if found.envelopes[peak] < ALIKE_AT_ALL * pairs:
        return 0
    first = max(0, (peak - ACCURACY_ROWS) * STEP)
    near = found.waves[first : (peak + ACCURACY_ROWS) * STEP + 1]
    if near.max() >= LIKE * pairs:
        return first + int(np.argmax(near)) - ROWS * STEP
    rows = peak - ROWS
    return rows * STEP if abs(rows) > ACCURACY_ROWS else 0


def _loudest_minute(reference: Wave, degraded: Wave) -> tuple[Wave, Wave]:
    """The loudest minute of ``reference`` that both have a part in, and that of ``degraded``."""
    starts = range(0, max(1, min(len(reference), len(degraded))), EXCERPT)
    energies = [float(np.square(reference[start : start + EXCERPT]).sum()) for start in starts]
    start = starts[int(np.argmax(energies))]
    # what lies further off than the longest delay cannot tell anything of the other one
    reach = ROWS * STEP
    return (
        reference[start : min(start + EXCERPT, len(degraded) + reach)],
        degraded[start : min(start + EXCERPT, len(reference) + reach)],
    )


def _envelope(wave: Wave) -> Array:
    """Log energies ``(T, 8)`` in bands up to 4 kHz, a row per millisecond, without their mean."""
    width = 10 * STEP
    padded = np.pad(wave, (width // 2, width // 2))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, width)[::STEP]
    magnitude = np.abs(np.fft.rfft(pieces * np.hanning(width), axis=-1))[:, :40]
    energy = np.log(magnitude.reshape(len(magnitude), 8, 5).sum(-1) + 1e-3)
    return np.asarray(energy - energy.mean(0))


def _correlate(reference: Array, degraded: Array, lags: int) -> Array:
    """Normalised cross-correlation ``(2 lags + 1,)`` of ``(N, K)`` and ``(N', K)``, over all K.

    Entry ``lags + d`` is for a signal that is ``d`` rows late.
    """
    # room for all lags that are asked for, also of signals shorter than those
    size = 1 << (len(reference) + len(degraded) + 2 * lags).bit_length()
    spectra = np.conj(np.fft.rfft(reference, size, axis=0)) * np.fft.rfft(degraded, size, axis=0)
    product = np.fft.irfft(spectra.sum(1), size)
    scale = math.sqrt(float((reference**2).sum()) * float((degraded**2).sum())) + 1e-12
    return np.asarray(np.concatenate([product[-lags:], product[: lags + 1]]) / scale)
