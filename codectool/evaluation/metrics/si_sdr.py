"""Scale-invariant signal-to-distortion ratio."""

from __future__ import annotations

import math

import numpy as np
from typing_extensions import override

from codectool.evaluation.metrics.base import Metric, MetricInfo, MetricUndefinedError, Values, Wave
from codectool.evaluation.metrics.support import require_sound

LIMIT = 1e-12  # clips the ratio to ±120 dB: the distortion of identical signals is zero


class SiSdr(Metric):
    """SI-SDR of zero-mean signals, from -120 dB (nothing in common) to 120 dB (identical).

    Le Roux, Wisdom, Erdogan and Hershey, "SDR: half-baked or well done?", arXiv 1811.02508,
    eq. (3). Codecs that do not preserve phase score far below zero, however they sound.
    """

    rate = 24000
    outputs = (
        MetricInfo(
            name="si_sdr_db",
            title="SI-SDR",
            unit="dB",
            better="higher",
            digits=1,
            range=(-120.0, 120.0),
            about="Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019) of the "
            "zero-mean waveforms at 24 kHz; a codec that does not preserve phase scores far below "
            "zero, however it sounds.",
            needs_speech=True,
        ),
    )

    @override
    def compute(self, reference: Wave, degraded: Wave) -> Values:
        require_sound(reference, degraded)
        before, after = (w.astype(float) - np.mean(w, dtype=float) for w in (reference, degraded))
        energy = float(before @ before)
        if energy == 0 or not after.any():  # the variation is below float precision
            raise MetricUndefinedError("a signal is silent")
        target = (after @ before) / energy * before
        error = after - target
        kept, lost = float(target @ target), float(error @ error)
        ratio = (kept + LIMIT * lost) / (lost + LIMIT * kept)
        return {"si_sdr_db": 10 * math.log10(ratio)}
