"""Token-rate periodicity: a buzz at the frame rate of a codec."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from codectool.evaluation.metrics.base import Metric, MetricInfo, Values, Wave
from codectool.evaluation.metrics.support import require_seconds

RATE = 24000
TOKEN_RATES = (50, 75, 80)  # of SuperCodec, HAC and BigCodec, in Hz; each divides `RATE`
BANDS = ((1000, 2000), (2000, 4000), (4000, 8000))  # in Hz; below, pitch dominates
FRAME, HOP = 1440, 720  # in samples: 60 ms and 30 ms
MIN_LEVEL_DB = -30.0  # of frames that count, relative to the loudest of the reference

Array = npt.NDArray[np.float64]


class TokenPeriodicity(Metric):
    """How much more the output repeats itself at a token rate than the original.

    A decoder that gives each token the same fine structure puts lines at multiples of the token
    rate, which are heard as a buzz. They raise the normalised autocorrelation at a lag of one
    token. It is averaged over frames of 60 ms in which the reference is loud and over three bands,
    and that of the reference is subtracted, so that a pitch near the token rate does not count. The
    value is the largest over the token rates of the codecs of codectool, which makes it comparable
    between them and defined for any audio.
    """

    rate = RATE
    outputs = (
        MetricInfo(
            name="buzz",
            title="token-rate periodicity",
            unit="",
            better="lower",
            digits=3,
            range=(0.0, 2.0),
            about="Normalised autocorrelation of the bands 1 to 2, 2 to 4 and 4 to 8 kHz at a lag "
            "of one token (50, 75 or 80 Hz), less that of the original; 0 if not above it.",
            needs_speech=True,
        ),
    )

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        require_seconds(reference, RATE)
        excess = np.zeros(len(TOKEN_RATES))
        for band in BANDS:
            before, after = _band(reference, *band), _band(degraded, *band)
            level = _products(before, before)
            loud = level > level.max() * 10 ** (MIN_LEVEL_DB / 10)
            excess += [
                _periodicity(after, RATE // rate, loud) - _periodicity(before, RATE // rate, loud)
                for rate in TOKEN_RATES
            ]
        return {"buzz": max(0.0, float(excess.max()) / len(BANDS))}


def _band(wave: Wave, low: float, high: float) -> Array:
    """Return a signal ``(N,)`` without frequencies outside a band."""
    spectrum = np.fft.rfft(wave.astype(float))
    frequencies = np.fft.rfftfreq(len(wave), 1 / RATE)
    spectrum[(frequencies < low) | (frequencies >= high)] = 0
    return np.asarray(np.fft.irfft(spectrum, len(wave)))


def _periodicity(band: Array, lag: int, loud: npt.NDArray[np.bool_]) -> float:
    """Return the mean normalised autocorrelation of the frames that are loud, -1 to 1."""
    now, later = band[:-lag], band[lag:]
    energy = _products(now, now) * _products(later, later)
    found = _products(now, later) / np.sqrt(np.maximum(energy, 1e-16))
    counted = found[loud[: len(found)]]
    return float(counted.mean()) if len(counted) else 0.0


def _products(first: Array, second: Array) -> Array:
    """Return the sum of the products of two signals in each frame ``(F,)``."""
    sums = np.concatenate([[0.0], np.cumsum(first * second)])
    return np.asarray(sums[FRAME::HOP] - sums[: len(sums) - FRAME : HOP])
