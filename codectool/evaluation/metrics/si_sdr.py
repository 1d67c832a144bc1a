"""How well the waveform itself is kept.

Letters used in shapes: N samples.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import require_sound

LIMIT = 1e-12  # ±120 dB: identical signals have no error to divide by


class WaveformMatch(Metric):
    """Scale-invariant signal-to-distortion ratio.

    Le Roux, Wisdom, Erdogan and Hershey, "SDR: half-baked or well done?", arXiv 1811.02508,
    eq. (3), of signals without their mean. Codecs that make the phase anew score far below zero
    here, however they sound.
    """

    rate: ClassVar[int] = 24000
    metrics: ClassVar[tuple[MetricInfo, ...]] = (
        MetricInfo(
            name="si_sdr_db",
            title="SI-SDR",
            unit="dB",
            better="higher",
            digits=1,
            range=(-120.0, 120.0),
            about="Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019) of the "
            "waveforms at 24 kHz without their mean; a codec that makes the phase anew scores far "
            "below zero, however it sounds.",
        ),
    )

    def compute(self, reference: Wave, degraded: Wave) -> Values:
        """Between -120 dB, where the two have nothing in common, and 120 dB."""
        require_sound(reference, degraded)
        before, after = (w.astype(float) - np.mean(w, dtype=float) for w in (reference, degraded))
        energy = float(before @ before)
        if energy == 0 or not after.any():  # it differs by less than the mean can be told
            raise MetricUndefinedError("a signal is silent")
        target = (after @ before) / energy * before
        error = after - target
        kept, lost = float(target @ target), float(error @ error)
        ratio = (kept + LIMIT * lost) / (lost + LIMIT * kept)
        return {"si_sdr_db": 10 * math.log10(ratio)}
